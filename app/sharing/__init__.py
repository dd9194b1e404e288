"""Links that open one file of a job without an API key."""
