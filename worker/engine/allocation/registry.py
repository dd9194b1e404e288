"""The registry of allocators, and the one entry point `allocate`: one scalar is bisected until the budget is met."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worker.engine.allocation.widths import WidthRules
from worker.engine.criteria import Scores
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.surgery import Plan

Allocator = Callable[[Analysis, Scores, float], Counts]
"""(analysis, scores, strength 0..1) -> units to keep of each group; strength 0 keeps all, 1 keeps none."""

ALLOCATORS: dict[str, Allocator] = {}


def allocator(name: str) -> Callable[[Allocator], Allocator]:
    """Register an allocator under the name that jobs use."""

    def register(function: Allocator) -> Allocator:
        ALLOCATORS[name] = function
        return function

    return register


@dataclass(frozen=True)
class Allocation:
    """The plan for a budget: what stays, what that costs, and whether the budget is met."""

    plan: Plan
    macs: int
    params: int
    reached: bool
    reason: str = ""


def allocate(
    analysis: Analysis,
    scores: Scores,
    *,
    macs_ratio: float,
    method: str = "uniform",
    round_to: int = 8,
    min_ratio: float = 0.05,
) -> Allocation:
    """Keep the most important units so that MACs <= macs_ratio * the original's, as closely as the widths allow.

    Channel counts become multiples of `round_to` where a layer is wide enough; every group keeps at least `min_ratio`
    of its units and never fewer than one. A budget below that floor gives the floor, with `reached=False` and the
    reason. Raises EngineError for an unknown method or a ratio outside 0..1.
    """
    if method not in ALLOCATORS:
        names = ", ".join(sorted(ALLOCATORS))
        raise EngineError("unknown_allocation", f"There is no allocation '{method}'.", f"Choose one of: {names}.")
    if not 0 < macs_ratio <= 1:
        raise EngineError(
            "bad_budget", f"macs_ratio is {macs_ratio}.", "Ask for more than 0 and at most 1, such as 0.5."
        )
    widths = WidthRules(analysis, round_to, min_ratio)
    goal = int(macs_ratio * analysis.macs)

    def counts_at(strength: float) -> Counts:
        return widths.apply(ALLOCATORS[method](analysis, scores, strength))

    def fits(counts: Counts) -> bool:
        return int(analysis.costs.macs(counts)) <= goal

    weak, strong = 0.0, 1.0
    counts = counts_at(weak)
    if not fits(counts):
        counts = counts_at(strong)
        if not fits(counts):
            return _allocation(analysis, scores, counts, goal)
        for _ in range(40):
            middle = (weak + strong) / 2
            candidate = counts_at(middle)
            if fits(candidate):
                strong, counts = middle, candidate
            else:
                weak = middle
    return _allocation(analysis, scores, widths.refill(counts, scores, goal), goal)


def _allocation(analysis: Analysis, scores: Scores, counts: Counts, goal: int) -> Allocation:
    kept = {}
    for group in analysis.groups:
        mask = np.zeros(len(group), dtype=bool)
        best = np.argsort(-scores[group.id], kind="stable")[: counts[group.id]]
        mask[best] = True
        kept[group.id] = mask
    macs, params = int(analysis.costs.macs(counts)), int(analysis.costs.params(counts))
    reason = ""
    if macs > goal:
        share = macs / analysis.macs
        reason = (
            f"with every prunable layer at its smallest width {share:.1%} of the MACs remain; "
            "the rest lies in layers that cannot be pruned"
        )
    return Allocation(Plan(kept), macs, params, macs <= goal, reason)
