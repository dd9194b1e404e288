"""One small rule per ONNX op. Importing this package fills the registry."""

from worker.engine.graph.rules import (
    elementwise,
    indexing,
    linear,
    normalisation,
    pooling,
    reduction,
    shape,
)

__all__ = ["elementwise", "indexing", "linear", "normalisation", "pooling", "reduction", "shape"]
