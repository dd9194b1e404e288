"""One threshold for all groups: the least important units go, wherever they are."""

import numpy as np

from worker.engine.allocation.registry import allocator
from worker.engine.criteria import Scores
from worker.engine.graph.analysis import Analysis, Counts


@allocator("global")
def global_threshold(analysis: Analysis, scores: Scores, strength: float) -> Counts:
    """Keep the units whose score, relative to their group's mean, is above the `strength` quantile of all scores."""
    if not analysis.groups:
        return analysis.full
    everything = np.sort(np.concatenate([scores[g.id] for g in analysis.groups]))
    cut = round(strength * len(everything))
    if cut >= len(everything):
        return np.zeros_like(analysis.full)
    threshold = everything[cut]
    return np.array([int((scores[g.id] >= threshold).sum()) for g in analysis.groups], dtype=np.int64)
