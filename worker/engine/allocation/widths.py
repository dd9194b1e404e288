"""Widths to choose: how many channels each layer, or set of coupled layers, may have, and which units those are."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.engine.allocation.limits import Limit
from worker.engine.criteria import Scores
from worker.engine.graph.analysis import Analysis, Counts

_ROOM = 4
"""Steps that every width has room for: with two, a narrow layer would be whole, halved or nearly gone."""


class Widths:
    """The widths of a model as one vector, a number of units each.

    A width whose units stand for w channels each moves in steps of round_to / gcd(round_to, w) units, halved until it
    has room for four of them. It never falls below `min_ratio` of its units, nor below one.
    """

    def __init__(self, analysis: Analysis, scores: Scores, *, round_to: int, min_ratio: float) -> None:
        self._analysis = analysis
        self.scores = [np.concatenate([scores[g] for g in groups]) for groups in analysis.widths]
        self.whole: Counts = np.array([len(s) for s in self.scores], dtype=np.int64)
        self._best_first = [self._owners(groups, s) for groups, s in zip(analysis.widths, self.scores, strict=True)]
        self._gains = [np.concatenate([[0.0], np.cumsum(np.sort(s)[::-1])]) for s in self.scores]
        self._channels = [max(analysis.groups[g].width for g in groups) for groups in analysis.widths]
        self.step = self._steps(round_to)
        self.floor = self._floor(self.step, min_ratio)

    def _steps(self, round_to: int) -> Counts:
        steps: Counts = np.array([round_to // math.gcd(round_to, c) for c in self._channels], dtype=np.int64)
        while (narrow := (self.whole < _ROOM * steps) & (steps > 1)).any():
            steps = np.where(narrow, steps // 2, steps)
        return steps

    def _floor(self, step: Counts, min_ratio: float) -> Counts:
        floor = np.maximum(np.ceil(self.whole * min_ratio).astype(np.int64), 1)
        return np.asarray(np.minimum(-(-floor // step) * step, self.whole))

    def smallest(self, round_to: int, min_ratio: float) -> Counts:
        """Units kept of each group at the floor that other options would set."""
        return self.counts(self._floor(self._steps(round_to), min_ratio))

    def _owners(self, groups: Sequence[int], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The group of each unit, the most important unit first."""
        owners = np.concatenate([np.full(len(self._analysis.groups[g]), g, dtype=np.int64) for g in groups])
        return np.asarray(owners[np.argsort(-scores, kind="stable")])

    def round(self, widths: npt.NDArray[np.floating[Any]]) -> Counts:
        """The nearest allowed widths; one close to the whole stays whole, whatever its divisor."""
        rounded: Counts = np.rint(widths / self.step).astype(np.int64) * self.step
        rounded = np.where(self.whole - widths < self.step / 2, self.whole, rounded)
        return np.clip(rounded, self.floor, self.whole)

    def counts(self, widths: Counts) -> Counts:
        """Units kept of each group when each width keeps its most important ones and no tensor becomes empty."""
        kept = np.zeros(len(self._analysis.groups), dtype=np.int64)
        for owners, width in zip(self._best_first, widths, strict=True):
            kept += np.bincount(owners[:width], minlength=len(kept))
        multiplicity = self._analysis.costs.multiplicity
        for dimension in np.flatnonzero(self._analysis.costs.sizes(kept) == 0):
            members = np.flatnonzero(multiplicity[dimension])
            if not kept[members].any():
                kept[members[0]] = 1
        return kept

    def fits(self, widths: Counts, limits: Sequence[Limit]) -> bool:
        """Whether these widths keep every limit."""
        kept = self.counts(widths)
        return all(float(limit.cost(kept)) <= limit.goal for limit in limits)

    def wider_steps(self, block: int) -> None:
        """Let widths with room for it move in steps that are whole blocks of channels, too."""
        steps = np.array([block // math.gcd(block, c) for c in self._channels], dtype=np.int64)
        both = np.lcm(self.step, steps)
        self.step = np.where(self.whole >= 2 * both, both, self.step)
        self.floor = np.minimum(-(-self.floor // self.step) * self.step, self.whole)

    def narrower(self, widths: Counts) -> tuple[npt.NDArray[np.intp], Counts, Counts, npt.NDArray[np.float64]]:
        """What each width may lose next: the widths that can lose a step, the widths after it, units lost of each
        group (candidates, G), and the rise of 1 / (share of the width's importance that is left)."""
        able = np.flatnonzero(widths > self.floor)
        # A whole that is no multiple of the step loses its remainder first.
        target = -(-(widths[able]) // self.step[able]) * self.step[able] - self.step[able]
        after = np.maximum(target, self.floor[able])
        return able, after, *self._apart(able, after, widths[able])

    def wider(self, widths: Counts) -> tuple[npt.NDArray[np.intp], Counts, Counts, npt.NDArray[np.float64]]:
        """What each width may gain next: as `narrower`, with the units gained and the fall of the same quotient."""
        able = np.flatnonzero(widths < self.whole)
        after = np.minimum(widths[able] + self.step[able], self.whole[able])
        return able, after, *self._apart(able, widths[able], after)

    def refill(self, widths: Counts, limits: Sequence[Limit]) -> Counts:
        """Give back what rounding took: widen one width after another by a step, the most importance per cost first,
        as long as every limit is kept. Cost is relative to what each limit allows, the scarcest limit's."""
        widths = widths.copy()
        full = self._analysis.full
        kept = self.counts(widths)
        unfilled = np.flatnonzero(widths < self.whole)
        while len(unfilled):
            wider = np.minimum(widths[unfilled] + self.step[unfilled], self.whole[unfilled])
            added = [self._added(int(w), int(widths[w]), int(to)) for w, to in zip(unfilled, wider, strict=True)]
            candidates = np.minimum(kept + np.array(added), full)
            costs = np.stack([limit.cost(candidates) / limit.goal for limit in limits])  # (limits, candidates)
            now = np.array([float(limit.cost(kept)) / limit.goal for limit in limits])
            fitting = np.flatnonzero((costs <= 1).all(axis=0))
            if not len(fitting):
                break
            extra = np.maximum((costs - now[:, None]).max(axis=0), 1e-12)
            gains = [self._gains[w][to] - self._gains[w][widths[w]] for w, to in zip(unfilled, wider, strict=True)]
            best = max(fitting, key=lambda row: gains[row] / extra[row])
            widths[unfilled[best]], kept = wider[best], candidates[best]
            # What does not fit now never will: costs only grow.
            unfilled = unfilled[fitting]
            unfilled = unfilled[widths[unfilled] < self.whole[unfilled]]
        return widths

    def _apart(
        self, chosen: npt.NDArray[np.intp], narrow: Counts, wide: Counts
    ) -> tuple[Counts, npt.NDArray[np.float64]]:
        """Units of each group by which two values of each chosen width differ, (chosen, G), and the difference of
        1 / (share of its importance)."""
        each = [(int(w), int(low), int(high)) for w, low, high in zip(chosen, narrow, wide, strict=True)]
        units = np.array([self._added(*between) for between in each], dtype=np.int64)
        scarcer = np.array([self._scarcity(w, low) - self._scarcity(w, high) for w, low, high in each])
        return units.reshape(len(each), len(self._analysis.groups)), scarcer

    def _scarcity(self, width: int, kept: int) -> float:
        """Total importance over what `kept` units have of it; of a width without importance, units count alike."""
        gains = self._gains[width]
        if gains[-1] <= 0:
            return float(self.whole[width]) / kept
        return float(gains[-1] / max(gains[kept], 1e-12 * gains[-1]))

    def _added(self, width: int, before: int, after: int) -> Counts:
        """Units that each group gains when a width grows."""
        return np.bincount(self._best_first[width][before:after], minlength=len(self._analysis.groups))
