"""Random scores: the baseline that every criterion has to beat."""

from __future__ import annotations

import numpy as np

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA, ScoreOptions
from worker.engine.criteria.width import Floats, Width


@CRITERIA.register(
    "random",
    title="Random",
    summary="Channels go by lot, the same for the same seed: the baseline that every criterion has to beat.",
    uses=(),
    exactness="own",
    options=ScoreOptions,
)
def random(evidence: Evidence, width: Width, options: ScoreOptions) -> list[Floats]:
    """Uniform scores, the same for the same seed and group."""
    lots = [np.random.default_rng([evidence.seed, group.id]).random(len(group)) for group in width.groups]
    return [np.concatenate(lots)]
