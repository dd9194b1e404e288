"""How much to prune where, to meet a budget. One file per allocation; the registry finds them by name."""

from worker.engine.allocation.limits import Limit, macs_limit, params_limit, size_limit
from worker.engine.allocation.registry import ALLOCATIONS, Allocation, Line, Problem, allocate, plan_of

ALLOCATIONS.load(__name__)

__all__ = [
    "ALLOCATIONS",
    "Allocation",
    "Limit",
    "Line",
    "Problem",
    "allocate",
    "macs_limit",
    "params_limit",
    "plan_of",
    "size_limit",
]
