"""The client and the `espalier` command: what a user's machine needs."""
