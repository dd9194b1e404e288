"""Layer-adaptive magnitude (Lee et al., ICLR 2021), by channel."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA, Normalised
from worker.engine.criteria.weights import rows_per_source
from worker.engine.criteria.width import Floats, Width


class LampOptions(Normalised):
    """LAMP scores compare across layers by themselves."""

    normalisation: Literal["mean", "max", "sum", "norm", "none"] = Field(
        default="none", description="LAMP scores are made to be compared across layers as they are: none."
    )


@CRITERIA.register(
    "lamp",
    title="LAMP",
    summary="Squared norms relative to what survives in the layer, which layers can be compared by.",
    paper="Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, arXiv 2010.07611, eq. 3",
    uses=("weights",),
    exactness="adapted",
    options=LampOptions,
)
def lamp(evidence: Evidence, width: Width, options: LampOptions) -> list[Floats]:
    """Each unit's squared norm over the sum of those that are at least as large: the last to go has 1."""
    rows = rows_per_source(width, lambda w: np.square(w).sum(axis=1), relative=False)
    if not rows:
        return []
    squares = np.sum(rows, axis=0)
    order = np.argsort(-squares, kind="stable")
    scores = np.empty_like(squares)
    scores[order] = squares[order] / np.maximum(np.cumsum(squares[order]), 1e-300)
    return [scores]
