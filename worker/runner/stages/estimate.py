"""estimate: score the channels and choose which of them stay, to the budget."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import onnx

from models_store.documents.base import Document
from models_store.documents.report import AllocationSearch, Candidate, LatencyRow, MaskSearch
from worker.engine.allocation import Allocation, Limit, SearchTrace, allocate, macs_limit
from worker.engine.criteria import Calibration, Scores, score
from worker.engine.graph import Analysis
from worker.engine.measure import evaluate, latency
from worker.engine.surgery import Plan, prune
from worker.runner.budget import is_met, latency_excess, latency_table, limits
from worker.runner.correction import corrected
from worker.runner.random_masks import draw_channels
from worker.runner.recovery import reason_for_none, recover
from worker.runner.workbench import Stage, Workbench

_LATENCY_ROUNDS = 7
_ACCURACY_STEPS = 7


class EstimatedLine(Document):
    """A line of the budget: goal and estimate in the budget's unit, and why no plan keeps it."""

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
    search: AllocationSearch | None = None

    def plan(self, analysis: Analysis) -> Plan:
        masks = {}
        for group in analysis.groups:
            masks[group.id] = np.zeros(len(group), dtype=bool)
            masks[group.id][list(self.kept[group.id])] = True
        return Plan(masks)


def run(bench: Workbench) -> Estimate:
    if bench.spec.random_masks is None or not bench.spec.random_masks.of_channels:
        return _allocated(bench)
    if not bench.allocated_path.exists():  # else an earlier attempt came to drawing masks
        bench.allocated_path.write_text(_allocated(bench).model_dump_json())
    estimate = Estimate.model_validate_json(bench.allocated_path.read_bytes())
    plan, masks = draw_channels(bench, bench.spec.random_masks, estimate.plan(bench.analysis))
    return estimate.model_copy(update={"kept": _kept(plan), "masks": masks})


def _allocated(bench: Workbench) -> Estimate:
    allocation = to_budget(bench, channel_scores(bench))
    bench.voice.metric({"macs_ratio": allocation.macs / max(bench.analysis.macs, 1) * bench.left.macs})
    return _document(bench, allocation)


def channel_scores(bench: Workbench) -> Scores:
    """By the criterion of the job; worked out once for the channels that may be pruned."""
    pruning, analysis = bench.work.pruning, bench.analysis

    def scored() -> Scores:
        return score(
            analysis,
            pruning.methods()["criterion"].name,
            pruning.criterion_options,
            seed=bench.work.seed,
            calibration=_calibration(bench),
        )

    return bench.memory.once("scores", analysis, scored)


def to_budget(bench: Workbench, scores: Scores) -> Allocation:
    """The plan for the budget's lines; where accuracy alone is bounded, the smallest plan that keeps it."""
    budget = bench.work.budget
    if not limits(bench):
        return _to_accuracy(bench, scores, budget.max_accuracy_drop or 0.0)
    allocation = allocate_within(bench, scores, limits(bench))
    if not budget.bounds_latency and budget.size_bytes is None:
        return allocation

    def excess(chosen: Allocation) -> tuple[float, int]:
        cut = prune(bench.analysis, chosen.plan)
        latency = latency_excess(budget, _measured(bench, cut)) if budget.bounds_latency else 1.0
        return latency, cut.ByteSize() - budget.size_bytes if budget.size_bytes is not None else 0

    def again(tightening: float, fewer_bytes: int) -> Allocation:
        return allocate_within(bench, scores, limits(bench, tightening, fewer_bytes))

    return corrected(allocation, excess, again, bench.voice.log)


def allocate_within(bench: Workbench, scores: Scores, lines: list[Limit]) -> Allocation:
    """By the allocation of the job."""
    pruning = bench.work.pruning
    return allocate(
        bench.analysis,
        scores,
        lines,
        method=pruning.methods()["allocation"].name,
        options=pruning.allocation_options,
        round_to=pruning.round_to,
        min_ratio=pruning.min_ratio,
        seed=bench.work.seed,
        table=lambda: latency_table(bench),
        dataset=lambda: bench.dataset,
        on_progress=bench.voice.progress,
        on_warning=lambda text: bench.voice.log(text, "warning"),
        memory=bench.memory,
    )


def _measured(bench: Workbench, cut: onnx.ModelProto) -> LatencyRow:
    """Latency of what a plan leaves, beside the original's."""
    budget = bench.work.budget
    batch, threads = (budget.latency_batch_size,), budget.latency_threads
    (row,) = latency(bench.original, cut, batch, threads, _LATENCY_ROUNDS, bench.work.seed)
    return LatencyRow.model_validate(asdict(row))


def _to_accuracy(bench: Workbench, scores: Scores, drop: float) -> Allocation:
    """Bisect the MACs to the fewest at which the validation accuracy is within `drop`, after the cut and whatever wins
    accuracy back without training."""
    if bench.dataset is None:
        raise ValueError("a budget of accuracy needs a dataset")
    split, classes = bench.dataset.validation, len(bench.dataset.classes)
    original = evaluate(bench.original, split, classes, bench.order.threads).top1
    low, high = 0.0, 1.0
    best = allocate_within(bench, scores, [macs_limit(bench.analysis, 1.0)])
    for step in range(_ACCURACY_STEPS):
        middle = (low + high) / 2
        found = allocate_within(bench, scores, [macs_limit(bench.analysis, middle)])
        cut = prune(bench.analysis, found.plan)
        if reason_for_none(bench) is None:

            def progress(share: float, done: int = step) -> None:
                bench.voice.progress((done + share) / _ACCURACY_STEPS)

            cut = recover(bench, cut, found.plan, progress).form.write_back()
        top1 = evaluate(cut, split, classes, bench.order.threads).top1
        bench.voice.log(f"{middle:.1%} of the MACs: {top1:.2%} of the validation images right, before training")
        if is_met(original - top1, drop):
            high, best = middle, found
        else:
            low = middle
        bench.voice.progress((step + 1) / _ACCURACY_STEPS)
    return replace(best, lines=())


def _calibration(bench: Workbench) -> Calibration | None:
    """As many training images as the criterion asks for; None where it asks for none."""
    wanted = bench.work.pruning.criterion_options.get("calibration_images")
    return bench.calibration(int(wanted)) if isinstance(wanted, int) else None


def _document(bench: Workbench, allocation: Allocation) -> Estimate:
    return Estimate(
        search=None if allocation.search is None else _told(bench, allocation, allocation.search),
        kept=_kept(allocation.plan),
        macs=allocation.macs,
        params=allocation.params,
        lines=tuple(
            EstimatedLine(
                name=line.name,
                goal=line.goal,
                value=line.value,
                reached=line.reached,
                reason=line.reason,
            )
            for line in allocation.lines
        ),
    )


def _kept(plan: Plan) -> dict[int, tuple[int, ...]]:
    return {group: tuple(np.flatnonzero(mask).tolist()) for group, mask in plan.kept.items()}


def _told(bench: Workbench, allocation: Allocation, search: SearchTrace) -> AllocationSearch:
    return AllocationSearch(
        method=bench.work.pruning.methods()["allocation"].name,
        line=allocation.lines[0].name if allocation.lines else "macs_ratio",
        images=search.images,
        candidates=tuple(Candidate(cost=each.cost, top1=each.top1, loss=each.loss) for each in search.evaluated),
        best=search.best,
        seconds=search.seconds,
    )


STAGE = Stage("estimate", Estimate, run)
