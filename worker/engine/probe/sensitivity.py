"""How much it costs to cut each width alone (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1:
each layer is pruned by itself, and the network's accuracy is looked at without retraining)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from worker.engine.allocation.plans import plan_of
from worker.engine.criteria import Scores
from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.probe.response import Probe
from worker.engine.surgery import Plan


@dataclass(frozen=True)
class Sensitivity:
    """What is lost when one width of the analysis keeps only so many of its units, and all others stay whole.

    `loss` is the change of the outputs, or the share of the width's importance that goes where no network was run.
    """

    width: int
    units: tuple[int, ...]
    """Kept, in falling order."""
    loss: tuple[float, ...]
    top1: tuple[float, ...] | None

    def at(self, units: float, whole: int) -> float:
        """The loss at any number of units: linear in between, and never less than with more units. A width of one unit
        has no cuts; losing all of it counts as losing all that there is."""
        xs = [whole, *self.units, 0]
        worst = np.maximum.accumulate([0.0, *self.loss])
        beyond = worst[-1] + (worst[-1] - worst[-2] if self.loss else 1.0) + 1e-9
        return float(np.interp(units, xs[::-1], [beyond, *worst[::-1]]))


def measure_sensitivity(
    analysis: Analysis,
    scores: Scores,
    probe: Probe,
    keep: Sequence[float],
    on_progress: Callable[[float], None] = lambda share: None,
) -> tuple[Sensitivity, ...]:
    """One per width, at the shares of units that `keep` names."""
    cuts = _cuts(analysis, scores, keep)
    responses = iter(probe.responses([plan for plans in cuts for _, plan in plans], on_progress))
    found = []
    for width, plans in enumerate(cuts):
        answers = [next(responses) for _ in plans]
        hits = tuple(answer.top1 for answer in answers if answer.top1 is not None)
        found.append(
            Sensitivity(
                width,
                tuple(units for units, _ in plans),
                tuple(answer.change for answer in answers),
                hits if len(hits) == len(answers) and hits else None,
            )
        )
    return tuple(found)


def importance_lost(analysis: Analysis, scores: Scores, keep: Sequence[float]) -> tuple[Sensitivity, ...]:
    """From the scores alone: the share of each width's importance that goes."""
    found = []
    for width, plans in enumerate(_cuts(analysis, scores, keep)):
        values = np.sort(np.concatenate([scores[g] for g in analysis.widths[width]]))[::-1]
        total = max(float(values.sum()), 1e-30)
        lost = tuple(1 - float(values[:units].sum()) / total for units, _ in plans)
        found.append(Sensitivity(width, tuple(units for units, _ in plans), lost, None))
    return tuple(found)


def _cuts(analysis: Analysis, scores: Scores, keep: Sequence[float]) -> list[list[tuple[int, Plan]]]:
    """For each width the numbers of units to keep, in falling order, with the plan that does so."""
    cuts = []
    for groups in analysis.widths:
        whole = sum(len(analysis.groups[g]) for g in groups)
        units = sorted({max(round(whole * share), 1) for share in keep} - {whole}, reverse=True)
        cuts.append([(kept, plan_of(analysis, scores, _narrowed(analysis, scores, groups, kept))) for kept in units])
    return cuts


def _narrowed(analysis: Analysis, scores: Scores, groups: Sequence[int], kept: int) -> Counts:
    """Units of each group when a width keeps its most important ones and everything else is whole."""
    owners = np.concatenate([np.full(len(analysis.groups[g]), g) for g in groups])
    best_first = owners[np.argsort(-np.concatenate([scores[g] for g in groups]), kind="stable")]
    counts = analysis.full.copy()
    for group in groups:
        counts[group] = max(int((best_first[:kept] == group).sum()), 1)
    return counts
