"""Plans made by estimates, put right by what is measured: latency and file sizes come out above or below them."""

from __future__ import annotations

import math
from collections.abc import Callable

from worker.engine.allocation import Allocation

CORRECTIONS = 3
MUCH_LESS = 0.9
"""Of the latency that is allowed: where no more is measured, the plan may keep more."""
_MARGIN = 0.97


def corrected(
    allocation: Allocation,
    excess: Callable[[Allocation], tuple[float, int]],
    again: Callable[[float, int], Allocation],
    tell: Callable[[str], None],
) -> Allocation:
    """The last plan that measures as it must, of at most CORRECTIONS further ones; the last of all where none does.

    excess: a plan -> its measured latency over what is allowed, 1 where latency is not bounded, and the bytes that its
    file has beyond what it may. again: (factor of the latency that the estimate may allow, bytes fewer than what the
    file may have) -> another plan.
    """
    met, fewer_bytes, tightening = None, 0, 1.0
    kept, exceeded = 0.0, math.inf
    """The largest factor so far with which latency was kept, and the smallest with which it was not."""
    for number in range(CORRECTIONS + 1):
        latency, over = excess(allocation)
        sure = 1.0 if met is None else _MARGIN  # a plan that keeps the budget does not give way to one that barely does
        if latency <= sure and over <= 0:
            met = allocation
        elif not allocation.reached:  # there is none that takes less
            break
        tightening *= _unreached(allocation)
        if number == CORRECTIONS or (met is allocation and latency > MUCH_LESS):
            break
        kept, exceeded = (max(kept, tightening), exceeded) if latency <= 1 else (kept, min(exceeded, tightening))
        if latency > 1 or over <= 0:
            tightening *= _MARGIN / latency
            if not kept < tightening < exceeded:  # what was measured does not follow the estimate, between the two
                tightening = math.sqrt(kept * exceeded)
            remedy = "more" if latency > 1 else "less"
            tell(f"measured latency is {latency:.2f} times what is allowed: pruning {remedy}")
        if over > 0:
            fewer_bytes += over
            tell(f"the file is {over} bytes larger than what is allowed: pruning more")
        before, allocation = allocation, again(tightening, fewer_bytes)
        if (allocation.macs, allocation.params) == (before.macs, before.params):
            break
    return met or allocation


def _unreached(allocation: Allocation) -> float:
    """How many times the latency that was allowed is estimated for a plan beyond which there is none; 1 for others."""
    return max([1.0, *(line.value / line.goal for line in allocation.lines if line.name.startswith("latency"))])
