"""L1 and L2 norms of the filters (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017)."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from worker.engine.criteria.registry import criterion
from worker.engine.criteria.weights import Floats, filters, per_unit
from worker.engine.graph.analysis import Analysis, Group


@criterion("l1")
def l1(analysis: Analysis, group: Group, seed: int) -> npt.NDArray[np.float64]:
    """Mean over the coupled weights of each filter's mean absolute weight."""
    return _mean_over_sources(analysis, group, lambda w: np.abs(w).mean(axis=1))


@criterion("l2")
def l2(analysis: Analysis, group: Group, seed: int) -> npt.NDArray[np.float64]:
    """Mean over the coupled weights of each filter's root mean square weight."""
    return _mean_over_sources(analysis, group, lambda w: np.sqrt(np.square(w).mean(axis=1)))


def _mean_over_sources(analysis: Analysis, group: Group, norm: Callable[[Floats], Floats]) -> npt.NDArray[np.float64]:
    total = np.zeros(len(group))
    for source in group.sources:
        weight = filters(analysis, source)  # (channels, weights per filter)
        if weight is not None:
            values = norm(weight)
            # Layers of different fan-in have different scales: each counts by its filters' relative norms.
            total += per_unit(analysis, group, source, values / max(float(values.mean()), 1e-12))
    return total
