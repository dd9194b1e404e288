"""The registry of allocators, and the one entry point `allocate`: one scalar is bisected until the budget is met."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.engine.allocation.widths import Widths
from worker.engine.criteria import Scores
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.surgery import Plan

Allocator = Callable[[Widths, float], npt.NDArray[np.float64]]
"""(widths, strength 0..1) -> units to keep of each width; strength 0 keeps all, 1 keeps none."""

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

    Channel counts become multiples of `round_to` where a layer is wide enough; every width keeps at least `min_ratio`
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
    widths = Widths(analysis, scores, round_to=round_to, min_ratio=min_ratio)
    goal = int(macs_ratio * analysis.macs)
    if not analysis.groups:
        return _allocation(analysis, scores, analysis.full, goal)

    def at(strength: float) -> Counts:
        return widths.round(ALLOCATORS[method](widths, strength))

    def fits(chosen: Counts) -> bool:
        return int(analysis.costs.macs(widths.counts(chosen))) <= goal

    weak, strong, chosen = 0.0, 1.0, at(0.0)
    if not fits(chosen):
        chosen = at(strong)
        if fits(chosen):
            for _ in range(40):
                middle = (weak + strong) / 2
                candidate = at(middle)
                if fits(candidate):
                    strong, chosen = middle, candidate
                else:
                    weak = middle
            chosen = widths.refill(chosen, goal)
    return _allocation(analysis, scores, widths.counts(chosen), goal)


def keep_share(analysis: Analysis, scores: Scores, share: float) -> Plan:
    """Keep this share of the units of every width, the most important ones, without rounding to multiples."""
    widths = Widths(analysis, scores, round_to=1, min_ratio=0.0)
    return _plan(analysis, scores, widths.counts(widths.round(widths.whole * share)))


def _plan(analysis: Analysis, scores: Scores, counts: Counts) -> Plan:
    kept = {}
    for group in analysis.groups:
        mask = np.zeros(len(group), dtype=bool)
        mask[np.argsort(-scores[group.id], kind="stable")[: counts[group.id]]] = True
        kept[group.id] = mask
    return Plan(kept)


def _allocation(analysis: Analysis, scores: Scores, counts: Counts, goal: int) -> Allocation:
    macs, params = int(analysis.costs.macs(counts)), int(analysis.costs.params(counts))
    reason = ""
    if macs > goal:
        share = macs / analysis.macs
        reason = (
            f"with every prunable layer at its smallest width {share:.1%} of the MACs remain; "
            "the rest lies in layers that cannot be pruned"
        )
    return Allocation(_plan(analysis, scores, counts), macs, params, macs <= goal, reason)
