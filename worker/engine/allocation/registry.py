"""The registry of allocations, and the one entry point `allocate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from worker.engine.allocation import unreachable
from worker.engine.allocation.latency_table import LatencyTable, measure_table
from worker.engine.allocation.limits import Limit
from worker.engine.allocation.plans import plan_of
from worker.engine.allocation.search_trace import SearchTrace
from worker.engine.allocation.widths import Widths
from worker.engine.criteria import Scores
from worker.engine.data import Dataset
from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.methods import Options, Registry
from worker.engine.surgery import Plan

T = TypeVar("T")
Floats = npt.NDArray[np.float64]

Harm = Callable[[npt.NDArray[np.intp], Counts, Counts, Floats], Floats]
"""(the widths that can lose a step, all widths now, those widths after it, the rise of 1 / (share of the importance
that is left)) -> the harm of each step."""

Saving = Callable[[Counts, Counts, Sequence[Limit]], Floats]
"""(units kept now, units kept after each step, the limits that are violated) -> what each step saves, above 0."""


class Memory:
    """What allocations of one model worked out and may want again, such as sensitivities, for another budget."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[object, object, float]] = {}
        self._spared: dict[str, float] = {}

    def once(self, what: str, of: object, find: Callable[[], T]) -> T:
        """The result of `find`, worked out at the first call with this name and this object."""
        known = what in self._found and self._found[what][0] is of
        if not known:
            start = time.perf_counter()
            self._found[what] = of, find(), time.perf_counter() - start
        _, result, seconds = self._found[what]
        self._spared.setdefault(what, seconds if known else 0.0)
        return cast(T, result)

    @contextmanager
    def sparing(self) -> Iterator[Mapping[str, float]]:
        """For what is asked for within, the seconds that it took before: who starts without it spends them, too."""
        spared: dict[str, float] = {}
        self._spared = spared
        yield spared


@dataclass(frozen=True)
class Means:
    """What an allocation may use beside the scores: each is made at first use."""

    table: Callable[[], LatencyTable] | None
    dataset: Callable[[], Dataset | None]
    on_progress: Callable[[float], None]
    warn: Callable[[str], None]
    memory: Memory


class Problem:
    """What an allocation decides on: the widths of a model, and the limits that they have to keep."""

    def __init__(
        self, analysis: Analysis, scores: Scores, widths: Widths, limits: Sequence[Limit], seed: int, means: Means
    ) -> None:
        self.analysis = analysis
        self.scores = scores
        self.widths = widths
        self.limits = tuple(limits)
        self.seed = seed
        self.on_progress = means.on_progress
        self.warn = means.warn
        """Told what the user should know about how the widths were found."""
        self.trace: SearchTrace | None = None
        """Left by searches."""
        self._means = means

    @cached_property
    def table(self) -> LatencyTable:
        """The latency of this model's layers, measured at first use."""
        return self._means.table() if self._means.table else measure_table(self.analysis)

    @cached_property
    def dataset(self) -> Dataset | None:
        """Of its images only those for training and validation are to be looked at."""
        return self._means.dataset()

    def once(self, what: str, find: Callable[[], T]) -> T:
        """The result of `find`, kept for other budgets of the same model with the same scores."""
        return self._means.memory.once(what, self.scores, find)

    def fits(self, widths: Counts) -> bool:
        return self.widths.fits(widths, self.limits)

    def bisect(self, at: Callable[[float], npt.NDArray[np.floating[Any]]]) -> Counts:
        """The widest widths of a family that keep the limits. `at` gives the units to keep of each width for a
        strength, 0 (all) to 1 (none); what rounding took is given back. Widths that do not fit: nothing does."""

        def rounded(strength: float) -> Counts:
            return self.widths.round(at(strength))

        chosen = rounded(0.0)
        if self.fits(chosen):
            return chosen
        weak, strong, chosen = 0.0, 1.0, rounded(1.0)
        if not self.fits(chosen):
            return chosen
        for _ in range(40):
            middle = (weak + strong) / 2
            candidate = rounded(middle)
            if self.fits(candidate):
                strong, chosen = middle, candidate
            else:
                weak = middle
        return self.widths.refill(chosen, self.limits)

    def narrow(self, start: Counts, harm: Harm, saving: Saving) -> Counts:
        """Narrow one width after another by a step, the least harm per cost saved first, until every limit is kept or
        nothing can go any more."""
        widths, chosen = self.widths, start.copy()
        kept = widths.counts(chosen)
        while violated := [limit for limit in self.limits if float(limit.cost(kept)) > limit.goal]:
            able, after, lost, rise = widths.narrower(chosen)
            if not len(able):
                break
            candidates = np.maximum(kept - lost, 0)
            helps = np.any([limit.cost(candidates) < limit.cost(kept) for limit in violated], axis=0)
            each = harm(able, chosen, after, rise)
            # Where no step helps by itself, as part of a block does not, the least harmful leads on to one that does.
            price = np.where(helps, each / saving(kept, candidates, violated), np.inf) if helps.any() else each
            best = int(np.argmin(price))
            chosen[able[best]] = after[best]
            kept = widths.counts(chosen)
        return chosen


Allocator = Callable[[Problem, Any], Counts]
"""(problem, options) -> units to keep of each width."""

ALLOCATIONS: Registry[Allocator] = Registry("allocation", asked_for_by="pruning.allocation")


@dataclass(frozen=True)
class Line:
    """A limit and what the plan costs by it, both in the unit of the budget; and why no plan keeps it."""

    name: str
    goal: float
    value: float
    reason: str = ""

    @property
    def reached(self) -> bool:
        return self.value <= self.goal


@dataclass(frozen=True)
class Allocation:
    """The plan for a budget: what stays, what that costs, and whether the budget is met."""

    plan: Plan
    macs: int
    params: int
    lines: tuple[Line, ...]
    search: SearchTrace | None = None

    @property
    def reached(self) -> bool:
        return all(line.reached for line in self.lines)


def allocate(
    analysis: Analysis,
    scores: Scores,
    limits: Sequence[Limit],
    *,
    method: str = "uniform",
    options: Mapping[str, Any] | Options | None = None,
    round_to: int = 8,
    min_ratio: float = 0.05,
    seed: int = 0,
    table: Callable[[], LatencyTable] | None = None,
    dataset: Callable[[], Dataset | None] = lambda: None,
    on_progress: Callable[[float], None] = lambda share: None,
    on_warning: Callable[[str], None] = lambda text: None,
    memory: Memory | None = None,
) -> Allocation:
    """Keep the most important units within all limits, as closely as the widths allow.

    Channel counts become multiples of `round_to` where a layer is wide enough; every width keeps at least `min_ratio`
    of its units and never fewer than one. A limit below what that floor costs gives what costs no more than
    the floor, with the reason in its line.
    `table` measures latency for the methods that use it; without one it is measured at batch size 1 on one thread.
    `dataset` is for methods that run the network: its training and validation images alone are looked at. `memory`
    keeps what they found for other budgets. Raises EngineError for an unknown method or option, and where a method
    needs data that are not there.
    """
    chosen = ALLOCATIONS.find(method)
    read = chosen.read_options(options)
    if not analysis.groups:
        return _allocation(analysis, scores, analysis.full, limits, unreachable.without_widths)
    widths = Widths(analysis, scores, round_to=round_to, min_ratio=min_ratio)
    means = Means(table, dataset, on_progress, on_warning, memory or Memory())
    floor = widths.counts(widths.floor)
    problem = Problem(analysis, scores, widths, [limit.relaxed_to(floor) for limit in limits], seed, means)
    counts = widths.counts(chosen.function(problem, read))

    def why(limit: Limit) -> str:
        return unreachable.reason(analysis, limit, widths, round_to, min_ratio)

    found = _allocation(analysis, scores, counts, limits, why)
    return replace(found, search=problem.trace)


def _allocation(
    analysis: Analysis, scores: Scores, counts: Counts, limits: Sequence[Limit], why: Callable[[Limit], str]
) -> Allocation:
    macs, params = int(analysis.costs.macs(counts)), int(analysis.costs.params(counts))
    lines = tuple(
        Line(limit.name, limit.goal / limit.unit, float(limit.cost(counts)) / limit.unit, why(limit))
        for limit in limits
    )
    return Allocation(plan_of(analysis, scores, counts), macs, params, lines)
