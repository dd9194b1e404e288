"""/v1/models: uploaded networks."""
