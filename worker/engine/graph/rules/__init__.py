"""One small rule per ONNX op. Importing this package fills the registry."""

from worker.engine.graph.rules import (
    attention,
    elementwise,
    indexing,
    linear,
    normalisation,
    pooling,
    reduction,
    shape,
)

__all__ = ["attention", "elementwise", "indexing", "linear", "normalisation", "pooling", "reduction", "shape"]
