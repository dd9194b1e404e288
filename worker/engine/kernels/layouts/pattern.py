"""Regular patterns inside kernels (PCONV, Ma et al., AAAI 2020; PatDNN, Niu et al., ASPLOS 2020).

Every kernel of a layer keeps the same number of weights, in one of a few shapes. The library of a layer is made of the
shapes that its kernels would choose most often if each were free.
"""

import numpy as np
from pydantic import Field

from worker.engine.kernels.layouts.registry import GRANULARITIES, Floats, KernelOptions, Mask, best


class PatternOptions(KernelOptions):
    patterns: int = Field(default=8, ge=1, le=64, description="Shapes in the library of a layer.")


@GRANULARITIES.register(
    "pattern",
    title="Intra-kernel regular patterns",
    summary="Every kernel of a layer keeps as many weights, in one of a few shapes; dense runtimes gain nothing.",
    paper="Ma et al., PCONV, AAAI 2020, arXiv 1909.05073",
    uses=("weights",),
    exactness="adapted",
    options=PatternOptions,
)
def pattern(importance: Floats, options: PatternOptions) -> Mask | str:
    """Each kernel keeps round((1 - sparsity) x its weights) weights, in the library's shape that keeps most."""
    outputs, inputs = importance.shape[:2]
    flat = importance.reshape(outputs * inputs, -1)
    size = flat.shape[1]
    if size < 4:
        return f"has {size} weights in a kernel; a pattern needs 4"
    kept = max(round((1 - options.sparsity) * size), 1)
    shapes, counts = np.unique(best(flat, kept), axis=0, return_counts=True)
    library = shapes[np.argsort(-counts, kind="stable")[: options.patterns]]
    chosen: Mask = library[(flat @ library.T.astype(np.float64)).argmax(axis=1)]
    return chosen.reshape(importance.shape)
