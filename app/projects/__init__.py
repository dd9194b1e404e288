"""/v1/projects: whom everything belongs to."""
