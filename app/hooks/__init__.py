"""/v1/hooks: events of other services that start runs."""
