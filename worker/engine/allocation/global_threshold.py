"""One threshold for all widths: the least important units go, wherever they are."""

import numpy as np
import numpy.typing as npt

from worker.engine.allocation.registry import allocator
from worker.engine.allocation.widths import Widths


@allocator("global")
def global_threshold(widths: Widths, strength: float) -> npt.NDArray[np.float64]:
    """Keep the units whose score, relative to the mean of their width, is above the `strength` quantile of all."""
    everything = np.sort(np.concatenate(widths.scores))
    cut = round(strength * len(everything))
    if cut >= len(everything):
        return np.zeros(len(widths.whole))
    return np.array([float((scores >= everything[cut]).sum()) for scores in widths.scores])
