"""Kernel granularity: which kernels (2-D slices of filters) of the convolutions go, as masks or as a grouped layout."""

from worker.engine.kernels.grouped import Grouped, group_kernels
from worker.engine.kernels.layouts import GRANULARITIES
from worker.engine.kernels.targets import Skipped, Target, find_targets

__all__ = ["GRANULARITIES", "Grouped", "Skipped", "Target", "find_targets", "group_kernels"]
