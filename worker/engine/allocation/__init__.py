"""How much to prune where, to meet a budget. One file per allocator; the registry finds them by name."""

from worker.engine.allocation import global_threshold, uniform
from worker.engine.allocation.registry import ALLOCATORS, Allocation, allocate, keep_share

__all__ = ["ALLOCATORS", "Allocation", "allocate", "global_threshold", "keep_share", "uniform"]
