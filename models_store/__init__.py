"""What is kept: tables, repositories, the job state machine, documents, blobs."""
