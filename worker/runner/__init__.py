"""The child process of one job: reads its order, runs the stages, writes events and artifacts."""
