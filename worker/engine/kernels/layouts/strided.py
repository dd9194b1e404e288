"""Intra-kernel strided sparsity (Anwar, Hwang and Sung, arXiv 1512.08571, section 3): one weight in s stays.

All kernels that read one input channel share the offset, as in the paper: the lowered feature matrix then loses whole
columns. The paper draws the offsets at random and picks among the draws; here the offset that keeps most importance
is taken.
"""

import numpy as np

from worker.engine.kernels.layouts.registry import GRANULARITIES, Floats, KernelOptions, Mask


@GRANULARITIES.register(
    "strided",
    title="Intra-kernel strided sparsity",
    summary="One weight in s of every kernel stays, at an offset of each input channel; dense runtimes gain nothing.",
    paper="Anwar, Hwang and Sung, Structured Pruning of Deep Convolutional Neural Networks, arXiv 1512.08571",
    uses=("weights",),
    exactness="adapted",
    options=KernelOptions,
)
def strided(importance: Floats, options: KernelOptions) -> Mask | str:
    """Of the weights of a kernel, counted row by row, those at offset, offset + s, ... stay; s = 1 / (1 - sparsity)."""
    outputs, inputs = importance.shape[:2]
    flat = importance.reshape(outputs, inputs, -1)
    stride, size = round(1 / (1 - options.sparsity)), flat.shape[2]
    if size < stride:
        return f"has {size} weights in a kernel, fewer than the stride of {stride}"
    offset_of = np.arange(size) % stride
    per_channel = flat.sum(axis=0)  # (inputs, size)
    totals = np.stack([per_channel[:, offset_of == offset].sum(axis=1) for offset in range(stride)], axis=1)
    chosen = offset_of[None, :] == totals.argmax(axis=1)[:, None]  # (inputs, size)
    return np.broadcast_to(chosen, flat.shape).reshape(importance.shape)
