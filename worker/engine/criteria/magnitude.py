"""L1 and L2 norms of the filters (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017)."""

from __future__ import annotations

import numpy as np

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA, ScoreOptions
from worker.engine.criteria.weights import rows_per_source
from worker.engine.criteria.width import Floats, Width

_PAPER = "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv 1608.08710"


@CRITERIA.register(
    "l1",
    title="L1 norm",
    summary="Filters with the smallest absolute weights go.",
    paper=_PAPER,
    uses=("weights",),
    exactness="adapted",
    options=ScoreOptions,
)
def l1(evidence: Evidence, width: Width, options: ScoreOptions) -> list[Floats]:
    """Each filter's mean absolute weight, relative to its layer's mean."""
    return rows_per_source(width, lambda w: np.abs(w).mean(axis=1))


@CRITERIA.register(
    "l2",
    title="L2 norm",
    summary="Filters with the smallest Euclidean norm go.",
    paper=_PAPER,
    uses=("weights",),
    exactness="adapted",
    options=ScoreOptions,
)
def l2(evidence: Evidence, width: Width, options: ScoreOptions) -> list[Floats]:
    """Each filter's root mean square weight, relative to its layer's mean."""
    return rows_per_source(width, lambda w: np.sqrt(np.square(w).mean(axis=1)))
