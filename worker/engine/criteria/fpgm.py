"""Filter pruning via geometric median (He et al., CVPR 2019)."""

from __future__ import annotations

import numpy as np

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA, ScoreOptions
from worker.engine.criteria.weights import rows_per_source
from worker.engine.criteria.width import Floats, Width


@CRITERIA.register(
    "fpgm",
    title="Geometric median",
    summary="Filters closest to all others of their layer go: what they do, the others can do, too.",
    paper="He et al., Filter Pruning via Geometric Median, CVPR 2019, arXiv 1811.00250, eq. 8",
    uses=("weights",),
    exactness="adapted",
    options=ScoreOptions,
)
def fpgm(evidence: Evidence, width: Width, options: ScoreOptions) -> list[Floats]:
    """The sum of each filter's Euclidean distances to the other filters of its layer."""
    return rows_per_source(width, _distances)


def _distances(filters: Floats) -> Floats:
    """(channels, weights) -> (channels,)."""
    squares = np.square(filters).sum(axis=1)
    squared = squares[:, None] + squares[None, :] - 2 * filters @ filters.T
    np.fill_diagonal(squared, 0.0)
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)).sum(axis=1))
