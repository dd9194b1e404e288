"""estimate: score the channels and choose which of them stay, to the budget."""

from __future__ import annotations

import numpy as np

from models_store.documents.base import Document
from worker.engine.allocation import Allocation, allocate
from worker.engine.criteria import score
from worker.engine.graph import Analysis
from worker.engine.surgery import Plan
from worker.runner.workbench import Stage, Workbench


class Estimate(Document):
    """The plan: units kept of each group that can be pruned, and what it should cost."""

    kept: dict[int, tuple[int, ...]]
    macs: int
    params: int
    reached: bool
    reason: str

    def plan(self, analysis: Analysis) -> Plan:
        masks = {}
        for group in analysis.groups:
            masks[group.id] = np.zeros(len(group), dtype=bool)
            masks[group.id][list(self.kept[group.id])] = True
        return Plan(masks)


def run(bench: Workbench) -> Estimate:
    pruning = bench.spec.pruning
    allocation = allocate(
        bench.analysis,
        score(bench.analysis, pruning.criterion, seed=bench.spec.seed),
        macs_ratio=bench.spec.budget.macs_ratio,
        method=pruning.allocation,
        round_to=pruning.round_to,
        min_ratio=pruning.min_ratio,
    )
    bench.voice.metric({"macs_ratio": allocation.macs / max(bench.analysis.macs, 1)})
    return _document(allocation)


def _document(allocation: Allocation) -> Estimate:
    return Estimate(
        kept={group: tuple(np.flatnonzero(mask).tolist()) for group, mask in allocation.plan.kept.items()},
        macs=allocation.macs,
        params=allocation.params,
        reached=allocation.reached,
        reason=allocation.reason,
    )


STAGE = Stage("estimate", Estimate, run)
