"""/v1/jobs: work on uploads."""
