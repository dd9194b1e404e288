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

    The channels are the innermost axis there, as sparse tensor cores read a convolution's weight.
    """
    outputs, inputs = importance.shape[:2]
    if inputs % M:
        return f"has {inputs} input channels, which {M} does not divide"
    positions = importance.reshape(outputs, inputs, -1).transpose(0, 2, 1).reshape(outputs, -1, inputs // M, M)
    chosen = best(positions, round((1 - options.sparsity) * M))
    chosen = chosen.reshape(outputs, -1, inputs).transpose(0, 2, 1)
    return np.ascontiguousarray(chosen).reshape(importance.shape)
