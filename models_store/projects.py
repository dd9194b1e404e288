"""Projects: whom everything belongs to."""

DEFAULT_PROJECT = f"prj_{0:032x}"
"""Owns everything while the service asks for no keys."""
