"""The plain client, made from the one to be awaited; only flow.py is written by hand."""
