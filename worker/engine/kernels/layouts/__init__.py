"""Layouts of zeros in dense weights. One file per layout; the registry finds them by name."""

from worker.engine.kernels.layouts import free, n_m, pattern, strided
from worker.engine.kernels.layouts.registry import LAYOUTS, MaskOptions, mask_of

__all__ = ["LAYOUTS", "MaskOptions", "free", "mask_of", "n_m", "pattern", "strided"]
