"""/metrics: what a Prometheus server reads."""
