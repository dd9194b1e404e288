"""Methods: what a job can be told to prune by."""
