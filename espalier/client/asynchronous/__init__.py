"""The client to be awaited: what the plain one is made from."""
