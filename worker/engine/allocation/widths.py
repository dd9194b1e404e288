"""Widths that hardware likes: counts of channels in multiples, with a floor under every group."""

import math

import numpy as np

from worker.engine.criteria import Scores
from worker.engine.graph.analysis import Analysis, Counts


class WidthRules:
    """Rounds kept counts to steps: a group whose units stand for w channels each moves in steps of
    round_to / gcd(round_to, w) units, if it has at least two such steps; a narrower group moves by single units."""

    def __init__(self, analysis: Analysis, round_to: int, min_ratio: float) -> None:
        self._analysis = analysis
        whole = analysis.full
        steps = np.array([round_to // math.gcd(round_to, g.width) for g in analysis.groups], dtype=np.int64)
        self.step = np.where(whole >= 2 * steps, steps, 1)
        floor = np.maximum(np.ceil(whole * min_ratio).astype(np.int64), 1)
        self.floor = np.minimum(np.maximum(-(-floor // self.step) * self.step, 1), whole)

    def apply(self, counts: Counts) -> Counts:
        """The nearest allowed counts; a count near the whole stays whole, whatever its divisor."""
        whole = self._analysis.full
        rounded = np.rint(counts / self.step).astype(np.int64) * self.step
        rounded = np.where(whole - counts < self.step / 2, whole, rounded)
        return np.clip(rounded, self.floor, whole)

    def refill(self, counts: Counts, scores: Scores, goal: int) -> Counts:
        """Give back what rounding took: widen one group after another by a step, the most important units per MAC
        first, as long as the goal holds."""
        counts = counts.copy()
        costs, whole = self._analysis.costs, self._analysis.full
        ordered = {g: np.sort(s)[::-1] for g, s in scores.items()}
        open_groups = [g for g in range(len(counts)) if counts[g] < whole[g]]
        while open_groups:
            wider = np.tile(counts, (len(open_groups), 1))
            for row, g in enumerate(open_groups):
                wider[row, g] = min(counts[g] + self.step[g], whole[g])
            macs = costs.macs(wider)
            extra = np.maximum(macs - int(costs.macs(counts)), 1)
            gain = [float(ordered[g][counts[g] : wider[row, g]].sum()) for row, g in enumerate(open_groups)]
            best = max(
                (row for row in range(len(open_groups)) if macs[row] <= goal),
                key=lambda row: gain[row] / extra[row],
                default=None,
            )
            if best is None:
                break
            counts = wider[best]
            open_groups = [g for row, g in enumerate(open_groups) if macs[row] <= goal and counts[g] < whole[g]]
        return counts
