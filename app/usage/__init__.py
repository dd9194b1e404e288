"""/v1/usage: what the project uses, and what it may."""
