"""Free form: the least important kernels of a layer go, wherever they are (the control of Anwar and Sung, 2016)."""

import numpy as np

from worker.engine.kernels.layouts.registry import GRANULARITIES, Floats, KernelOptions, Mask, best


@GRANULARITIES.register(
    "free",
    title="Kernels, free in form",
    summary="The least important 2-D kernels become zero, wherever they are; dense runtimes gain nothing.",
    paper="Anwar and Sung, Coarse Pruning of Convolutional Neural Networks with Random Masks, arXiv 1610.09639",
    uses=("weights",),
    options=KernelOptions,
)
def free(importance: Floats, options: KernelOptions) -> Mask | str:
    """Exactly round(sparsity x kernels) kernels go."""
    return weakest_kernels_gone(importance, options.sparsity)


def weakest_kernels_gone(importance: Floats, sparsity: float) -> Mask:
    """The mask of the layout, for layers of any kernel size."""
    outputs, inputs = importance.shape[:2]
    kernels = importance.reshape(outputs * inputs, -1).sum(axis=1)
    kept = kernel_count(outputs * inputs, sparsity)
    chosen = best(kernels, kept).reshape(outputs, inputs, *[1] * (importance.ndim - 2))
    return np.broadcast_to(chosen, importance.shape)


def kernel_count(kernels: int, sparsity: float) -> int:
    """How many of a layer's kernels stay: never none."""
    return max(kernels - round(sparsity * kernels), 1)
