"""/v1/pipelines: saved jobs with gates, and their runs."""
