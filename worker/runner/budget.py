"""A job's budget: its lines as limits for the allocation, and the verdict on each at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from models_store.documents.job_spec import Budget, JobSpec, Measuring
from models_store.documents.report import ROUNDING, AccuracyRows, BudgetVerdict, Cost, LatencyRow
from worker.engine.allocation import (
    LatencyTable,
    Limit,
    latency_limit,
    macs_limit,
    measure_table,
    params_limit,
    size_limit,
)
from worker.runner.workbench import Workbench

_ANY_BATCH_SIZE = Budget.model_fields["latency_batch_size"].default


def latency_table(bench: Workbench) -> LatencyTable:
    """Measured at the batch size and threads of the budget's line, once for the groups of channels that there are."""
    budget, analysis = bench.work.budget, bench.analysis

    def measured() -> LatencyTable:
        bench.voice.log("measuring the latency of the model's layers at several widths")
        return measure_table(
            analysis,
            batch=budget.latency_batch_size,
            threads=budget.latency_threads,
            on_progress=bench.voice.progress,
        )

    return bench.memory.once("latency table", analysis, measured)


def limits(bench: Workbench, tightening: float = 1.0, fewer_bytes: int = 0) -> list[Limit]:
    """The lines that bound the plan. Where estimates promised too much, `tightening` multiplies what latency may be,
    and `fewer_bytes` come off what the file may have."""
    budget, analysis, left = bench.work.budget, bench.analysis, bench.left
    found = []
    if budget.macs_ratio is not None:
        found.append(replace(macs_limit(analysis, budget.macs_ratio / left.macs), left=left.macs))
    if budget.params_ratio is not None:
        found.append(replace(params_limit(analysis, budget.params_ratio / left.params), left=left.params))
    if budget.size_bytes is not None:
        allowed = max(budget.size_bytes - fewer_bytes, 1)
        found.append(size_limit(analysis, allowed, bench.model_file.path.stat().st_size))
    if budget.bounds_latency:
        table = latency_table(bench)
        ratios = []
        if budget.latency_ratio is not None:
            ratios.append(budget.latency_ratio / left.latency)
        if budget.latency_ms is not None:
            ratios.append(budget.latency_ms / max(table.whole, 1e-9))
        found.append(replace(latency_limit(table, min(ratios) * tightening), left=left.latency))
    return found


def latency_excess(budget: Budget, row: LatencyRow) -> float:
    """Measured latency over what the budget allows, the line that is furthest off; at most 1 where all are met."""
    ratios = [0.0]
    if budget.latency_ratio is not None:
        ratios.append(1 / row.speedup / budget.latency_ratio)
    if budget.latency_ms is not None:
        ratios.append(row.pruned.p50_ms / budget.latency_ms)
    return max(ratios)


def is_met(value: float, goal: float) -> bool:
    """Whether a figure is at most the goal, but for rounding."""
    return value <= goal + ROUNDING


def latency_row(budget: Budget, rows: Sequence[LatencyRow]) -> LatencyRow | None:
    """The row at the budget's threads and batch size; a model whose batch size is fixed has none but at its own."""
    rows = [row for row in rows if row.threads == budget.latency_threads]
    return next((row for row in rows if row.batch_size == budget.latency_batch_size), rows[0] if rows else None)


def other_batch_sizes(spec: JobSpec, rows: Sequence[LatencyRow]) -> tuple[str, ...]:
    """A sentence where latency was asked for at a batch size that the model does not take. Defaults go without
    saying: what they ask for is latency at any size."""
    asked: set[int] = set()
    if spec.measuring.batch_sizes != Measuring().batch_sizes:
        asked |= set(spec.measuring.batch_sizes)
    if spec.budget.bounds_latency and spec.budget.latency_batch_size != _ANY_BATCH_SIZE:
        asked.add(spec.budget.latency_batch_size)
    measured = sorted({row.batch_size for row in rows})
    missing = sorted(asked - set(measured))
    if not missing or not measured:
        return ()
    sizes, instead = (", ".join(map(str, each)) for each in (missing, measured))
    return (f"the model's batch size is fixed: latency was measured and judged at {instead}, not at {sizes}.",)


def verdicts(
    budget: Budget,
    reasons: dict[str, str],
    original: Cost,
    pruned: Cost,
    latency: tuple[LatencyRow, ...],
    accuracy: AccuracyRows | None,
) -> tuple[BudgetVerdict, ...]:
    """One per line that was asked for. `reasons`: line -> why no plan can keep it."""
    row = latency_row(budget, latency)
    values = {
        "macs_ratio": pruned.macs / max(original.macs, 1),
        "params_ratio": pruned.params / max(original.params, 1),
        "size_bytes": float(pruned.size_bytes),
        "latency_ratio": 1 / row.speedup if row else None,
        "latency_ms": row.pruned.p50_ms if row else None,
        "max_accuracy_drop": accuracy.original.top1 - accuracy.final.top1 if accuracy else None,
    }
    judge = partial(_verdict, reasons=reasons)
    return tuple(
        judge(name, float(goal), values[name]) for name, goal in budget.lines().items() if values[name] is not None
    )


def _verdict(name: str, goal: float, value: float | None, reasons: dict[str, str]) -> BudgetVerdict:
    value = float(value or 0.0)
    if is_met(value, goal):
        return BudgetVerdict(name=name, goal=goal, value=value, verdict="met")
    impossible = reasons.get("latency_ratio" if name.startswith("latency") else name, "")
    if impossible:
        return BudgetVerdict(name=name, goal=goal, value=value, verdict="unreachable", reason=impossible)
    return BudgetVerdict(name=name, goal=goal, value=value, verdict="missed", reason=_WHY_MISSED.get(name, ""))


_WHY_MISSED = {
    "latency_ratio": "the estimate from the layers' times kept the budget, and the whole model, as measured, does not",
    "latency_ms": "the estimate from the layers' times kept the budget, and the whole model, as measured, does not",
    "max_accuracy_drop": "what the cut cost was not won back: train longer, or prune less",
    "size_bytes": "the file was estimated smaller than it came out",
}
