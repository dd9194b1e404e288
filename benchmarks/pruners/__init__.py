"""One module per pruner under comparison: each prunes one model in a process of its own and prints what came out."""
