"""The stages of a prune job, one module each: read the documents of those before, do one thing, leave a document."""
