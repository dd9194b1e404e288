"""The API plane: HTTP in, rows and blobs out. Knows nothing of torch or ONNX."""
