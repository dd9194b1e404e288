"""/v1/keys: what programs show to be let in."""
