"""The same share of every width."""

import numpy as np
import numpy.typing as npt

from worker.engine.allocation.registry import allocator
from worker.engine.allocation.widths import Widths


@allocator("uniform")
def uniform(widths: Widths, strength: float) -> npt.NDArray[np.float64]:
    """Keep 1 - strength of the units of each width."""
    return np.asarray(widths.whole * (1 - strength))
