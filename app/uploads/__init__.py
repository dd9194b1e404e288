"""Receiving files: streamed to disk, hashed on the way, checked at the door."""
