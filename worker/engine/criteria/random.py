"""Random scores: the baseline that every criterion has to beat."""

import numpy as np
import numpy.typing as npt

from worker.engine.criteria.registry import criterion
from worker.engine.graph.analysis import Analysis, Group


@criterion("random")
def random(analysis: Analysis, group: Group, seed: int) -> npt.NDArray[np.float64]:
    """Uniform scores, the same for the same seed and group."""
    return np.random.default_rng([seed, group.id]).random(len(group))
