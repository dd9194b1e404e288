"""The registry of criteria, and the one entry point `score`."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis, Group

Scores = dict[int, npt.NDArray[np.float64]]
"""group id -> one score per unit; larger is more important."""

Criterion = Callable[[Analysis, Group, int], npt.NDArray[np.float64]]
"""(analysis, group, seed) -> one score per unit of the group."""

CRITERIA: dict[str, Criterion] = {}


def criterion(name: str) -> Callable[[Criterion], Criterion]:
    """Register a criterion under the name that jobs use."""

    def register(function: Criterion) -> Criterion:
        CRITERIA[name] = function
        return function

    return register


def score(analysis: Analysis, name: str, *, seed: int = 0) -> Scores:
    """Scores of all units, normalised so that each group's mean is 1 and groups compare across layers.

    Raises EngineError for an unknown name.
    """
    if name not in CRITERIA:
        raise EngineError(
            "unknown_criterion", f"There is no criterion '{name}'.", f"Choose one of: {', '.join(sorted(CRITERIA))}."
        )
    scores: Scores = {}
    for group in analysis.groups:
        raw = CRITERIA[name](analysis, group, seed)
        mean = float(raw.mean())
        scores[group.id] = raw / mean if mean > 0 else np.ones_like(raw)
    return scores
