"""Which units stay when only their numbers are decided."""

from __future__ import annotations

import numpy as np

from worker.engine.criteria import Scores
from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.surgery import Plan


def plan_of(analysis: Analysis, scores: Scores, counts: Counts) -> Plan:
    """Keep the `counts[g]` most important units of each group."""
    kept = {}
    for group in analysis.groups:
        mask = np.zeros(len(group), dtype=bool)
        mask[np.argsort(-scores[group.id], kind="stable")[: counts[group.id]]] = True
        kept[group.id] = mask
    return Plan(kept)
