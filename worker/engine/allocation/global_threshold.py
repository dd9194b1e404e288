"""One threshold for all widths: the least important units go, wherever they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from worker.engine.allocation.registry import ALLOCATIONS, Problem
from worker.engine.graph.analysis import Counts
from worker.engine.methods import Options


@ALLOCATIONS.register(
    "global",
    title="Global threshold",
    summary="The least important channels go, in whichever layers they are.",
    paper="Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, arXiv 1708.06519",
    uses=(),
    exactness="adapted",
)
def global_threshold(problem: Problem, options: Options) -> Counts:
    """Keep the units whose score, relative to the mean of their width, is above the `strength` quantile of all."""
    scores = problem.widths.scores
    everything = np.sort(np.concatenate(scores))

    def at(strength: float) -> npt.NDArray[np.float64]:
        cut = round(strength * len(everything))
        if cut >= len(everything):
            return np.zeros(len(scores))
        return np.array([float((values >= everything[cut]).sum()) for values in scores])

    return problem.bisect(at)
