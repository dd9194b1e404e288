"""The same share of every group."""

import numpy as np

from worker.engine.allocation.registry import allocator
from worker.engine.criteria import Scores
from worker.engine.graph.analysis import Analysis, Counts


@allocator("uniform")
def uniform(analysis: Analysis, scores: Scores, strength: float) -> Counts:
    """Keep 1 - strength of the units of each group."""
    kept: Counts = np.rint(analysis.full * (1 - strength)).astype(np.int64)
    return kept
