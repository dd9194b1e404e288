"""Why no widths keep a limit, and what would have to change for some to do."""

from __future__ import annotations

import math

from worker.engine.allocation.limits import Limit
from worker.engine.allocation.widths import Widths
from worker.engine.graph.analysis import Analysis, Counts

_TOLD = 5e-5
"""A smaller share reads as 0.00 %."""


def without_widths(limit: Limit) -> str:
    """The reason where a model has nothing to prune; empty where it keeps the limit as it is."""
    return "" if limit.whole <= limit.goal else "no layer of this model can be pruned: all of it remains"


def reason(analysis: Analysis, limit: Limit, widths: Widths, round_to: int, min_ratio: float) -> str:
    """Empty where some widths keep the limit."""
    floor, least = widths.smallest(round_to, min_ratio), widths.smallest(1, 0.0)
    if limit.keeps(floor):
        return ""
    estimated = ", by the times of its layers" if limit.name.startswith("latency") else ""
    remains = (
        f"with every prunable layer at its smallest width {_share(limit, floor)} of the original's remains{estimated}"
    )
    if float(limit.cost(least)) >= float(limit.cost(floor)):
        return f"{remains}{_pinned(analysis, limit, floor)}"
    held = f"{remains}: pruning.round_to {round_to} and pruning.min_ratio {min_ratio:g} allow no less"
    enough = _options_that_reach(limit, widths, round_to, min_ratio)
    if enough:
        return f"{held}; set {enough} to reach the goal"
    return f"{held}; with 1 and 0 {_share(limit, least)} would remain{_pinned(analysis, limit, least)}"


def _options_that_reach(limit: Limit, widths: Widths, round_to: int, min_ratio: float) -> str:
    """The options that have to change for the floor to keep the limit, one rather than both and by as little as it
    takes; empty where nothing does."""
    step = round_to // 2  # halves of it suit the hardware as far as they can
    while step:
        if limit.keeps(widths.smallest(step, min_ratio)):
            return f"pruning.round_to to {step}"
        step //= 2
    if limit.keeps(widths.smallest(round_to, 0.0)):
        return f"pruning.min_ratio to {_largest_ratio(limit, widths, round_to, min_ratio):g}"
    if limit.keeps(widths.smallest(1, 0.0)):
        return f"pruning.round_to to 1 and pruning.min_ratio to {_largest_ratio(limit, widths, 1, min_ratio):g}"
    return ""


def _largest_ratio(limit: Limit, widths: Widths, round_to: int, min_ratio: float) -> float:
    """The largest min_ratio of three digits with which the floor keeps the limit; 0 does."""
    low, high = 0, math.ceil(min_ratio * 1000)
    while high - low > 1:
        middle = (low + high) // 2
        if limit.keeps(widths.smallest(round_to, middle / 1000)):
            low = middle
        else:
            high = middle
    return low / 1000


def _pinned(analysis: Analysis, limit: Limit, kept: Counts) -> str:
    """What layers hold that cannot be pruned, where that can be told: they lose no channels, but inputs."""
    costs = {"macs_ratio": "macs", "params_ratio": "params"}
    if limit.name not in costs:
        return ""
    pinned = [layer for layer in analysis.layers_under(kept) if layer.prunable_channels == 0]
    held = sum(getattr(layer, costs[limit.name]) for layer in pinned)
    share = held / limit.whole * limit.left
    return f", {share:.2%} in layers that cannot be pruned" if share >= _TOLD else ""


def _share(limit: Limit, kept: Counts) -> str:
    """Of the original's."""
    return f"{float(limit.cost(kept)) / limit.whole * limit.left:.2%}"
