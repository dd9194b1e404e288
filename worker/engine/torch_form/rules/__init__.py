"""Op rules, one module per family."""
