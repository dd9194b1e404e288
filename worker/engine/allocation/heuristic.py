"""The pruning estimator gamma of Choudhary et al. (2022), reconstructed: its formula is not public.

What is public is its shape: filters whose score falls below a threshold gamma of their own layer go, and gamma follows
from the layer's scores, so that nobody sets a rate per layer. Each rule below, by name and version, is one way to put
a threshold into a distribution; one scalar moves the thresholds of all layers alike until the budget is met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from worker.engine.allocation.registry import ALLOCATIONS, Problem
from worker.engine.graph.analysis import Counts
from worker.engine.methods import Options

Scores = npt.NDArray[np.float64]

_ENDS = 1e-9


_WINDOW = 0.25
_NO_WINDOW: JsonDict = {
    "const": _WINDOW,
    "$comment": "window is about rule largest_gap: choose that, or leave window out",
}


class HeuristicOptions(Options):
    """Which reconstruction of gamma."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"rule": {"const": "largest_gap"}}, "required": ["rule"]},
            "else": {"properties": {"window": _NO_WINDOW}},
        }
    )

    rule: Literal["mean_std", "largest_gap", "otsu"] = Field(
        default="mean_std",
        description="mean_std: gamma = mean - k std, with one k for all layers. largest_gap: in the "
        "middle of the largest gap between sorted scores. otsu: the threshold that parts the scores into the two most "
        "distinct classes, times a factor.",
    )
    version: Literal[2] = Field(
        default=2,
        description="Of the rules: a change of a formula gets a new number. 2: of mean_std, one k for all layers, "
        "where 1 had a range of its own in each.",
    )
    window: float = Field(
        default=_WINDOW,
        ge=0,
        lt=0.5,
        description="Of largest_gap: how far from the sought rank a gap may lie, as a share of twice the scores below "
        "or above it, whichever are fewer. Gaps in the tails, between outliers, lie outside.",
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
        gammas = rule(scores, strength, options.window)
        return np.array([float((s >= gamma).sum()) for s, gamma in zip(scores, gammas, strict=True)])

    return problem.bisect(at)


def mean_std(layers: Sequence[Scores], strength: float, window: float) -> list[float]:
    """mean - k std, with the same k in all layers; strength 0..1 runs through every k that makes a difference in any
    of them."""
    means = [float(scores.mean()) for scores in layers]
    # Equal scores are told from their mean at any scale.
    stds = [max(float(s.std()), _ENDS * abs(mean), 1e-150) for s, mean in zip(layers, means, strict=True)]
    reach = 1 + max(float(np.abs(s - mean).max()) / std for s, mean, std in zip(layers, means, stds, strict=True))
    k = reach * (1 - 2 * strength)
    return [mean - k * std for mean, std in zip(means, stds, strict=True)]


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


Rule = Callable[[Sequence[Scores], float, float], list[float]]
"""(each layer's scores, strength 0..1, window) -> gamma of each. Strength 0 lies below all scores, 1 above them."""


def _layer_by_layer(gamma: Callable[[Scores, float, float], float]) -> Rule:
    return lambda layers, strength, window: [gamma(scores, strength, window) for scores in layers]


RULES: dict[str, Rule] = {
    "mean_std": mean_std,
    "largest_gap": _layer_by_layer(largest_gap),
    "otsu": _layer_by_layer(otsu),
}
"""By name, as the options have them."""
