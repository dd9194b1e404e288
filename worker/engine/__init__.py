"""Pruning of ONNX graphs as a pure library: no HTTP, no Celery, no database."""
