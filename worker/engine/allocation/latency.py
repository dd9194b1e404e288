"""Importance per millisecond: a knapsack over groups by a latency table that is measured on the worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.engine.allocation.limits import Limit
from worker.engine.allocation.registry import ALLOCATIONS, Floats, Problem
from worker.engine.graph.analysis import Counts
from worker.engine.methods import Options


class LatencyOptions(Options):
    """How widths move."""

    block: int = Field(
        default=16,
        ge=1,
        le=128,
        description="Widths are multiples of this where layers are wide enough: convolutions are computed in blocks.",
    )
    shared: Literal["paths", "once"] = Field(
        default="paths",
        description="How much a width counts that many layers share, as a residual stream: paths, once for each path "
        "from a layer that makes it to one that reads it; once, as any other, which is faster still and less accurate.",
    )


@ALLOCATIONS.register(
    "latency",
    title="Latency-aware knapsack",
    summary="What costs most milliseconds for its importance goes, by a table of layer times measured on the worker.",
    paper="Shen et al., Structural Pruning via Latency-Saliency Knapsack (HALP), NeurIPS 2022, arXiv 2210.06659",
    cost="seconds to minutes: every distinct layer is timed at up to 16 pairs of widths",
    uses=("latency",),
    exactness="adapted",
    options=LatencyOptions,
)
def latency(problem: Problem, options: LatencyOptions) -> Counts:
    """Narrow one width after another by a step, the least harm per millisecond saved first, until every limit is kept;
    then give back what fits.

    Harm is the rise of 1 / (share of the width's importance that is left), once for each path from a layer that makes
    the width to one that reads it: what a residual stream loses is missing between any two of its blocks. A sum of
    importances would starve layers for others; a sum of logarithms would leave open how a product of two neighbouring
    widths, which is what a layer's time follows, is shared between them, and widths would alternate between wide and
    narrow. Times depend on the widths on both sides of a layer, so that HALP's knapsack over separate layers does not
    apply: the greedy solution is the knapsack's for one step, taken anew after each.
    """
    widths = problem.widths
    paths = _paths(problem) if options.shared == "paths" else np.ones(len(widths.whole), dtype=np.int64)
    finest = widths.step, widths.floor
    widths.wider_steps(options.block)
    chosen = _narrowed(problem, paths, widths.whole)
    if not problem.fits(chosen):  # blocks are too coarse for this budget
        widths.step, widths.floor = finest
        chosen = _narrowed(problem, paths, chosen)
    return _widened(problem, paths, chosen)


def _paths(problem: Problem) -> npt.NDArray[np.int64]:
    """The layers that make each width times those that read it, (widths,), at least 1. Depthwise layers hand it on."""
    mixing = [layer for layer in problem.table.layers if layer.shape.group]
    ends = [[layer.outputs.multiplicity for layer in mixing], [layer.inputs.multiplicity for layer in mixing]]
    on = np.array(ends).reshape(2, len(mixing), len(problem.analysis.groups)) > 0
    layers = [on[:, :, list(groups)].any(axis=2).sum(axis=1) for groups in problem.analysis.widths]
    return np.array([makers * readers for makers, readers in np.maximum(layers, 1)])


def _narrowed(problem: Problem, paths: npt.NDArray[np.int64], start: Counts) -> Counts:
    """Step by step until every limit is kept, or nothing can go any more."""
    table = problem.table

    def harm(able: npt.NDArray[np.intp], now: Counts, after: Counts, rise: Floats) -> Floats:
        return np.asarray(paths[able] * rise)

    def saved(kept: Counts, candidates: Counts, violated: Sequence[Limit]) -> Floats:
        return np.asarray(np.maximum(float(table.cost(kept)) - table.cost(candidates), 0) + 1e-9 * table.whole)

    return problem.narrow(start, harm, saved)


def _widened(problem: Problem, paths: npt.NDArray[np.int64], start: Counts) -> Counts:
    """Give back what the last steps took beyond the limits, the most relief per millisecond first: a step of a width
    that many layers share may overshoot by several percent."""
    widths, table, chosen = problem.widths, problem.table, start.copy()
    while True:
        able, after, added, fall = widths.wider(chosen)
        kept = widths.counts(chosen)
        candidates = np.minimum(kept + added, problem.analysis.full)
        fits = np.all([limit.cost(candidates) <= limit.goal for limit in problem.limits], axis=0)
        if not len(able) or not np.any(fits):
            return chosen
        spent = np.maximum(table.cost(candidates) - float(table.cost(kept)), 0) + 1e-9 * table.whole
        best = int(np.argmax(np.where(fits, paths[able] * fall / spent, -np.inf)))
        chosen[able[best]] = after[best]
