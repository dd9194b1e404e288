"""How much to prune where, to meet a budget. One file per allocation; the registry finds them by name."""

from worker.engine.allocation.latency_table import LatencyTable, measure_table
from worker.engine.allocation.limits import Limit, latency_limit, macs_limit, params_limit, size_limit
from worker.engine.allocation.plans import plan_of
from worker.engine.allocation.registry import ALLOCATIONS, Allocation, Line, Memory, Problem, allocate
from worker.engine.allocation.search_trace import Evaluated, SearchTrace

ALLOCATIONS.load(__name__)

__all__ = [
    "ALLOCATIONS",
    "Allocation",
    "Evaluated",
    "LatencyTable",
    "Limit",
    "Line",
    "Memory",
    "Problem",
    "SearchTrace",
    "allocate",
    "latency_limit",
    "macs_limit",
    "measure_table",
    "params_limit",
    "plan_of",
    "size_limit",
]
