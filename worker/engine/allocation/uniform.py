"""The same share of every width."""

from __future__ import annotations

from worker.engine.allocation.registry import ALLOCATIONS, Problem
from worker.engine.graph.analysis import Counts
from worker.engine.methods import Options


@ALLOCATIONS.register(
    "uniform",
    title="Uniform",
    summary="The same share of every layer's channels goes.",
    uses=(),
    exactness="own",
)
def uniform(problem: Problem, options: Options) -> Counts:
    """Keep 1 - strength of the units of each width."""
    return problem.bisect(lambda strength: problem.widths.whole * (1 - strength))
