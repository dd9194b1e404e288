"""The job plane: Celery rings, a supervisor starts a child process for each job."""
