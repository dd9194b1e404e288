"""Granularities below whole channels, as zeros in dense weights. One file each; the registry finds them by name."""

from worker.engine.kernels.layouts.registry import GRANULARITIES, KernelOptions, mask_of

GRANULARITIES.load(__name__)

__all__ = ["GRANULARITIES", "KernelOptions", "mask_of"]
