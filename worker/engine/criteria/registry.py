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
    """Scores of all units, normalised so that each width's mean is 1 and units compare across layers.

    Raises EngineError for an unknown name.
    """
    if name not in CRITERIA:
        raise EngineError(
            "unknown_criterion", f"There is no criterion '{name}'.", f"Choose one of: {', '.join(sorted(CRITERIA))}."
        )
    raw = {group.id: CRITERIA[name](analysis, group, seed) for group in analysis.groups}
    scores: Scores = {}
    for groups in analysis.widths:
        mean = float(np.concatenate([raw[g] for g in groups]).mean())
        scores.update({g: raw[g] / mean if mean > 0 else np.ones_like(raw[g]) for g in groups})
    return scores
