"""What a search for an allocation chooses from, and how it judges: vectors of keep ratios, brought to the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.engine.allocation.global_threshold import global_threshold
from worker.engine.allocation.plans import plan_of
from worker.engine.allocation.registry import Problem
from worker.engine.allocation.search_trace import Evaluated, SearchTrace
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Counts
from worker.engine.methods import Options

if TYPE_CHECKING:
    from worker.engine.probe import Objective, Value

Vector = npt.NDArray[np.float64]
"""A keep ratio in 0..1 for each width. What counts is how they relate: all are scaled until the budget is met."""

SMALLEST = 0.02
"""The least that a candidate keeps of a width."""


class SearchOptions(Options):
    """How much a search may look at."""

    evaluations: int = Field(default=60, ge=2, le=10_000, description="Candidates that are evaluated.")
    images: int = Field(default=512, ge=1, le=100_000, description="Validation images that score a candidate, at most.")
    calibration_images: int = Field(
        default=128, ge=2, le=100_000, description="Training images on which its BatchNormalizations are taken anew."
    )


class PopulationOptions(SearchOptions):
    """Searches that move many candidates at once."""

    population: int = Field(default=12, ge=2, le=1000, description="Candidates at a time.")


class Candidates:
    """The candidates of one problem. Every one that is evaluated keeps the budget, as far as any can."""

    def __init__(self, problem: Problem, options: SearchOptions) -> None:
        self._problem = problem
        self._options = options
        self._start = time.monotonic()
        self._worth: dict[tuple[int, ...], Value] = {}
        self._seen: list[Evaluated] = []
        self._objective = problem.once(
            f"objective {options.images} {options.calibration_images} {problem.seed}", self._new_objective
        )
        self.rng = np.random.default_rng([problem.seed, 6])
        self.dimensions = len(problem.widths.whole)

    @property
    def left(self) -> int:
        """Evaluations that may still be made."""
        return self._options.evaluations - len(self._seen)

    def first(self) -> list[Vector]:
        """Where a search begins: the same ratio everywhere, and what one threshold over all scores keeps, as the
        allocations `uniform` and `global` have them."""
        by_threshold = global_threshold(self._problem, Options()) / self._problem.widths.whole
        return [np.ones(self.dimensions), np.maximum(by_threshold, SMALLEST)]

    def random(self) -> Vector:
        return self.rng.uniform(0.1, 1.0, self.dimensions)

    def evaluate(self, vector: Vector) -> float:
        """The scalar that is to be maximised: accuracy, and a thousandth of the loss, by which equals differ."""
        widths = self.to_budget(vector)
        value = self._value(widths)
        return value.top1 + 1e-3 * float(np.clip(value.gain, -100, 0))

    def evaluate_both(self, vector: Vector) -> tuple[float, float]:
        """The same and the cost, of a candidate that may lie below the budget: it is only brought down to it."""
        widths = self.to_budget(vector, tight=False)
        value = self._value(widths)
        return value.top1 + 1e-3 * float(np.clip(value.gain, -100, 0)), self._cost(widths)

    def to_budget(self, vector: Vector, *, tight: bool = True) -> Counts:
        """The vector scaled until the limits are just kept, as widths. Costs come from the table of the model's
        dimensions, not from cutting. One that just keeps the limits stays as it is; without `tight` any that does."""
        problem, widths = self._problem, self._problem.widths
        ratios = np.clip(vector, SMALLEST, 1.0)
        as_is = widths.round(widths.whole * ratios)
        if problem.fits(as_is) and (not tight or np.array_equal(widths.refill(as_is, problem.limits), as_is)):
            return as_is
        return problem.bisect(lambda strength: widths.whole * _scaled(ratios, strength))

    def finish(self) -> Counts:
        """The best of all; the trace is left with the problem."""
        trace = SearchTrace(tuple(self._seen), self._objective.images, time.monotonic() - self._start)
        self._problem.trace = trace
        return np.array(trace.evaluated[trace.best].widths, dtype=np.int64)

    def _new_objective(self) -> Objective:
        # Imported here: other allocations need no torch.
        from worker.engine.probe import Objective
        from worker.engine.recovery import TOO_LARGE

        problem, options = self._problem, self._options
        if problem.dataset is None or not problem.dataset.labelled:
            raise EngineError(
                "needs_data", "A search evaluates on labelled images.", "Give the job a dataset, or choose another one."
            )
        chosen = partial(Objective, problem.analysis, problem.dataset, images=options.images, seed=problem.seed)
        try:
            return chosen(calibration_images=options.calibration_images)
        except EngineError as error:
            if error.code != TOO_LARGE:
                raise
            problem.warn(f"Candidates are judged with their norms as they are: {error.message}")
            return chosen(calibration_images=0)

    def _value(self, widths: Counts) -> Value:
        """Measured once for the same widths; a repetition counts as an evaluation, so that every search ends."""
        key = tuple(int(width) for width in widths)
        if key not in self._worth:
            analysis, counts = self._problem.analysis, self._problem.widths.counts(widths)
            self._worth[key] = self._objective(plan_of(analysis, self._problem.scores, counts))
        value = self._worth[key]
        self._seen.append(Evaluated(key, self._cost(widths), value.top1, -value.gain))
        self._problem.on_progress(len(self._seen) / self._options.evaluations)
        return value

    def _cost(self, widths: Counts) -> float:
        first = self._problem.limits[0]
        return float(first.cost(self._problem.widths.counts(widths))) / first.unit


def run_generations(
    candidates: Candidates, population: int, step: Callable[[Sequence[tuple[Vector, float]]], list[Vector]]
) -> Counts:
    """Evaluate a first population, then what `step` makes of all (vector, score) so far, until none is left."""
    pending = [*candidates.first(), *(candidates.random() for _ in range(population))][:population]
    history: list[tuple[Vector, float]] = []
    while candidates.left > 0:
        for vector in pending[: candidates.left]:
            history.append((vector, candidates.evaluate(vector)))
        if candidates.left > 0:
            pending = step(history)
    return candidates.finish()


def _scaled(ratios: Vector, strength: float) -> Vector:
    """From all ones at strength 0 through the ratios themselves at one half to zeros at 1."""
    return np.minimum(ratios * (1 / max(strength, 1e-9) - 1), 1.0)
