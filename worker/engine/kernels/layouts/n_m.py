"""N:M sparsity (Mishra et al., arXiv 2104.08378): of M neighbouring input channels N weights stay, M = 4."""

import numpy as np

from worker.engine.kernels.layouts.registry import GRANULARITIES, Floats, KernelOptions, Mask, best

M = 4


@GRANULARITIES.register(
    "n_m",
    title="N:M sparsity",
    summary="Of every four neighbouring input channels N weights stay (2:4); dense runtimes gain nothing.",
    paper="Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378",
    uses=("weights",),
    options=KernelOptions,
)
def n_of_m(importance: Floats, options: KernelOptions) -> Mask | str:
    """In each filter and at each position of the kernel, the N most important of every four input channels stay.

    The channels are the innermost axis there, as sparse tensor cores read a convolution's weight; the last four are
    filled up where 4 does not divide them.
    """
    outputs, inputs = importance.shape[:2]
    if inputs < M:
        return f"has {inputs} input channels; {M} are needed"
    filled = np.pad(importance.reshape(outputs, inputs, -1), ((0, 0), (0, -inputs % M), (0, 0)), constant_values=-1)
    positions = filled.transpose(0, 2, 1).reshape(outputs, filled.shape[2], -1, M)
    chosen = best(positions, max(round((1 - options.sparsity) * M), 1))
    chosen = chosen.reshape(outputs, filled.shape[2], -1)[..., :inputs].transpose(0, 2, 1)
    return np.ascontiguousarray(chosen).reshape(importance.shape)
