"""Rates by measured sensitivity: what each layer loses when it is cut alone, equal for all layers or per cost saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.engine.allocation.limits import Limit
from worker.engine.allocation.registry import ALLOCATIONS, Floats, Problem
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.methods import Options

if TYPE_CHECKING:
    from worker.engine.probe import Sensitivity

_KEEP = (0.875, 0.75, 0.5, 0.25, 0.125)
_NOISE = 4
_MOST_MACS, _FEWEST_IMAGES = 1e13, 8
"""What the images may cost together: minutes on a few cores. A network that costs more is run on fewer of them."""


class SensitivityOptions(Options):
    """What is measured, and what is made of it."""

    rule: Literal["equal", "knapsack"] = Field(
        default="equal",
        description="equal: every layer is cut until it loses as much as the others, so sensitive layers keep more. "
        "knapsack: step by step, the least is lost for what the budget's scarcest line saves.",
    )
    images: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Validation images the network is run on, at most: no more than take 10^13 multiply-accumulates, "
        "or 8. 4 random inputs if there are none.",
    )


@ALLOCATIONS.register(
    "sensitivity",
    title="Per-layer sensitivity",
    summary="Each layer is cut alone at several ratios, and what that changes in the network's outputs decides its "
    "rate. With a dataset on validation images, where channels that go leave their means behind, which recovery gives "
    "back through biases; without one on random inputs. A network that cannot be run with masks is judged by its "
    "scores alone.",
    paper="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv 1608.08710, section 3.1",
    cost="about five runs of half the network per layer",
    uses=("activations",),
    exactness="adapted",
    options=SensitivityOptions,
)
def sensitivity(problem: Problem, options: SensitivityOptions) -> Counts:
    """Widths whose losses, measured alone, are equal (or least per cost saved), within all limits."""
    losses = problem.once(f"sensitivity {options.images} {problem.seed}", lambda: _measured(problem, options.images))
    if options.rule == "knapsack":
        return _knapsack(problem, losses)
    whole = problem.widths.whole
    units = [np.arange(count + 1) for count in whole]
    curves = [np.array([s.at(u, int(w)) for u in each]) for s, each, w in zip(losses, units, whole, strict=True)]
    steps = np.unique(np.concatenate(curves))

    def at(strength: float) -> npt.NDArray[np.float64]:
        """The fewest units whose loss is at most the threshold, which runs through every value that occurs."""
        if strength <= 0:
            return whole.astype(np.float64)
        allowed = float(np.interp(strength, np.linspace(0, 1, len(steps)), steps))
        return np.array([float(np.flatnonzero(curve <= allowed)[0]) for curve in curves])

    return problem.bisect(at)


def _knapsack(problem: Problem, losses: Sequence[Sensitivity]) -> Counts:
    """Narrow one width after another by a step: the least loss per cost saved first, by the scarcest line."""
    whole = problem.widths.whole

    def added(able: npt.NDArray[np.intp], now: Counts, after: Counts, rise: Floats) -> Floats:
        steps = [(losses[w], int(whole[w]), int(now[w]), int(to)) for w, to in zip(able, after, strict=True)]
        return np.array([loss.at(to, all_) - loss.at(before, all_) + 1e-9 for loss, all_, before, to in steps])

    def saved(kept: Counts, candidates: Counts, violated: Sequence[Limit]) -> Floats:
        shares = [(float(v.cost(kept)) - v.cost(candidates)) / v.whole for v in violated]
        return np.asarray(np.maximum(np.max(shares, axis=0), 1e-12))

    return problem.widths.refill(problem.narrow(whole, added, saved), problem.limits)


def _measured(problem: Problem, images: int) -> tuple[Sensitivity, ...]:
    """Of a network that cannot be run with masks, the shares of importance that go."""
    # Imported here: other methods need no torch.
    from worker.engine.probe import Probe, importance_lost, measure_sensitivity, some_images, some_noise

    analysis, scores, data = problem.analysis, problem.scores, problem.dataset
    try:
        chosen = (
            some_noise(analysis, _NOISE, problem.seed)
            if data is None
            else some_images(analysis, data.validation, _affordable(analysis, images), len(data.classes), problem.seed)
        )
        # Recovery gives means back, and only jobs with images have one.
        probe = Probe(analysis, chosen, means=data is not None)
        return measure_sensitivity(analysis, scores, probe, _KEEP, problem.on_progress)
    except EngineError as error:
        problem.warn(f"Sensitivity is judged by the shares of importance that go, not measured: {error.message}")
        return importance_lost(analysis, scores, _KEEP)


def _affordable(analysis: Analysis, images: int) -> int:
    """As many of them as may be run with every width cut alone, of which each takes half of the network on average."""
    each = analysis.macs * len(analysis.widths) * len(_KEEP) / 2
    return min(images, max(int(_MOST_MACS / max(each, 1)), _FEWEST_IMAGES))
