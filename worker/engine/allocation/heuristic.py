"""The pruning estimator gamma of Choudhary et al. (2022), reconstructed: its formula is not public.

What is public is its shape: filters whose score falls below a threshold gamma of their own layer go, and gamma follows
from the layer's scores, so that nobody sets a rate per layer. Each rule below, by name and version, is one way to put
a threshold into a distribution; one scalar moves the thresholds of all layers alike until the budget is met.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.engine.allocation.registry import ALLOCATIONS, Problem
from worker.engine.graph.analysis import Counts
from worker.engine.methods import Options

Scores = npt.NDArray[np.float64]

_ENDS = 1e-9


class HeuristicOptions(Options):
    """Which reconstruction of gamma."""

    rule: Literal["mean_std", "largest_gap", "otsu"] = Field(
        default="mean_std",
        description="mean_std: gamma = mean - k std. largest_gap: in the middle of the largest gap between sorted "
        "scores. otsu: the threshold that parts the scores into the two most distinct classes, times a factor.",
    )
    version: Literal[1] = Field(default=1, description="Of the rule: a change of its formula gets a new number.")
    window: float = Field(
        default=0.25,
        ge=0,
        lt=0.5,
        description="Of largest_gap: how far from the sought rank a gap may lie, as a share of it. Gaps in the tails, "
        "between outliers, lie outside.",
    )


@ALLOCATIONS.register(
    "heuristic",
    title="Heuristic estimator gamma (reconstruction)",
    summary="Each layer's own score distribution decides how much of it goes; one scalar meets the budget. A "
    "reconstruction: the paper's formula for gamma is not public. The paper's scores are closest to criterion l1.",
    paper="Choudhary, Mishra, Goswami, Sarangapani, Heuristic-based automatic pruning of deep neural networks, Neural "
    "Computing and Applications 34, 2022, 4889-4903, doi 10.1007/s00521-021-06679-z",
    uses=(),
    exactness="reconstruction",
    options=HeuristicOptions,
)
def heuristic(problem: Problem, options: HeuristicOptions) -> Counts:
    """Keep the units whose score is at least their width's gamma, at the smallest strength that meets the budget."""
    scores = problem.widths.scores
    rule = RULES[options.rule]

    def at(strength: float) -> npt.NDArray[np.float64]:
        if strength <= 0:
            return problem.widths.whole.astype(np.float64)
        return np.array([float((s >= rule(s, strength, options.window)).sum()) for s in scores])

    return problem.bisect(at)


def mean_std(scores: Scores, strength: float, window: float) -> float:
    """mean - k std; strength 0..1 runs through every k that makes a difference."""
    mean, std = float(scores.mean()), max(float(scores.std()), _ENDS)
    reach = float(np.abs(scores - mean).max()) / std + 1
    k = reach * (1 - 2 * strength)
    return mean - k * std


def largest_gap(scores: Scores, strength: float, window: float) -> float:
    """The middle of the largest gap whose rank lies within the window around strength x number of scores."""
    ordered = np.sort(scores)
    count = len(ordered)
    reach = 2 * window * min(strength, 1 - strength)
    low, high = (int(np.clip(round(count * (strength + side * reach)), 0, count)) for side in (-1, 1))
    edges = np.concatenate([[ordered[0]], ordered, [ordered[-1]]])  # cutting nothing or everything opens no gap
    gaps = np.diff(edges)  # gaps[i]: what lies between i scores that go and the rest
    rank = low + int(np.argmax(gaps[low : high + 1]))
    if rank == count:
        return float(ordered[-1]) + _ENDS + abs(float(ordered[-1]))
    return float(edges[rank] + edges[rank + 1]) / 2


def otsu(scores: Scores, strength: float, window: float) -> float:
    """Otsu's threshold (IEEE Transactions on Systems, Man and Cybernetics 9, 1979) times strength / (1 - strength):
    at one half it is the threshold itself."""
    ordered = np.sort(scores)
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    if not len(below):
        threshold = float(ordered[0])
    else:
        mean_below, mean_above = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(ordered) - below)
        between = below * (len(ordered) - below) * np.square(mean_above - mean_below)
        split = int(np.argmax(between))
        threshold = float(ordered[split] + ordered[split + 1]) / 2
    # A layer whose scores are all zero goes first.
    return max(threshold, 1e-150) * strength / max(1 - strength, _ENDS)


RULES: dict[str, Callable[[Scores, float, float], float]] = {
    "mean_std": mean_std,
    "largest_gap": largest_gap,
    "otsu": otsu,
}
"""Name -> (a layer's scores, strength 0..1, window) -> gamma. Strength 0 lies below all scores, 1 above them."""
