"""One small rule per ONNX op. Importing this package fills the registry."""

from worker.engine.graph.rules import (
    attention,
    elementwise,
    fourier,
    indexing,
    linear,
    normalisation,
    pooling,
    reduction,
    shape,
)

__all__ = [
    "attention",
    "elementwise",
    "fourier",
    "indexing",
    "linear",
    "normalisation",
    "pooling",
    "reduction",
    "shape",
]
