"""Dataset formats, one module each with a `FORMAT`."""
