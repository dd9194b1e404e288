"""/v1/uploads: files that arrive in pieces and may be resumed (tus 1.0)."""
