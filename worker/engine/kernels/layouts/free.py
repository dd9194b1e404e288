"""Free form: the least important kernels of a layer go, wherever they are (the control of Anwar and Sung, 2016)."""

import numpy as np

from worker.engine.kernels.layouts.registry import Floats, Mask, MaskOptions, best, layout


@layout("free")
def free(importance: Floats, options: MaskOptions) -> Mask | str:
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
