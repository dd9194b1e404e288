"""estimate: score the channels and choose which of them stay, to the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models_store.documents.base import Document
from models_store.documents.report import MaskSearch
from worker.engine.allocation import Allocation, allocate, macs_limit
from worker.engine.criteria import Calibration, score
from worker.engine.graph import Analysis
from worker.engine.surgery import Plan
from worker.runner.random_masks import draw_channels
from worker.runner.workbench import Stage, Workbench


class EstimatedLine(Document):
    """A line of the budget: goal and estimate, both relative to the original where the budget is."""

    name: str
    goal: float
    value: float
    reached: bool
    reason: str


class Estimate(Document):
    """The plan: units kept of each group that can be pruned, and what it should cost."""

    kept: dict[int, tuple[int, ...]]
    macs: int
    params: int
    lines: tuple[EstimatedLine, ...]
    masks: MaskSearch | None = None

    def plan(self, analysis: Analysis) -> Plan:
        masks = {}
        for group in analysis.groups:
            masks[group.id] = np.zeros(len(group), dtype=bool)
            masks[group.id][list(self.kept[group.id])] = True
        return Plan(masks)


def run(bench: Workbench) -> Estimate:
    pruning = bench.spec.pruning
    scores = score(
        bench.analysis,
        pruning.criterion,
        pruning.criterion_options,
        seed=bench.spec.seed,
        calibration=_calibration(bench),
    )
    allocation = allocate(
        bench.analysis,
        scores,
        [macs_limit(bench.analysis, bench.spec.budget.macs_ratio)],
        method=pruning.allocation,
        options=pruning.allocation_options,
        round_to=pruning.round_to,
        min_ratio=pruning.min_ratio,
        seed=bench.spec.seed,
    )
    bench.voice.metric({"macs_ratio": allocation.macs / max(bench.analysis.macs, 1)})
    if bench.spec.random_masks is not None and bench.spec.random_masks.of_channels:
        plan, masks = draw_channels(bench, bench.spec.random_masks, allocation.plan)
        return _document(replace(allocation, plan=plan)).model_copy(update={"masks": masks})
    return _document(allocation)


def _calibration(bench: Workbench) -> Calibration | None:
    """As many training images as the criterion asks for; None where it asks for none."""
    wanted = bench.spec.pruning.criterion_options.get("calibration_images")
    return bench.calibration(int(wanted)) if isinstance(wanted, int) else None


def _document(allocation: Allocation) -> Estimate:
    return Estimate(
        kept={group: tuple(np.flatnonzero(mask).tolist()) for group, mask in allocation.plan.kept.items()},
        macs=allocation.macs,
        params=allocation.params,
        lines=tuple(
            EstimatedLine(
                name=line.name,
                goal=line.goal / line.whole,
                value=line.value / line.whole,
                reached=line.reached,
                reason=line.reason,
            )
            for line in allocation.lines
        ),
    )


STAGE = Stage("estimate", Estimate, run)
