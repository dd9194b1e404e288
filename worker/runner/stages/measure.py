"""measure: latency and peak memory of the original and of the exported model, in turn, on this machine."""

from __future__ import annotations

from dataclasses import asdict

from models_store.documents.base import Document
from models_store.documents.report import LatencyRow
from worker.engine.graph import load_model
from worker.engine.measure import latency, peak_memory
from worker.runner.stages import export
from worker.runner.workbench import Stage, Workbench


class Measured(Document):
    """Latency: one row per batch size that the model can take. Peak memory in bytes: original and pruned."""

    latency: tuple[LatencyRow, ...]
    peak_memory: tuple[int, int] | None = None


def run(bench: Workbench) -> Measured:
    measuring = bench.spec.measuring
    rows = latency(
        bench.original,
        load_model(bench.folder.out / export.NAME),
        measuring.batch_sizes,
        measuring.threads,
        measuring.rounds,
        bench.spec.seed,
        bench.voice.progress,
    )
    budget = bench.spec.budget
    wanted = (budget.latency_batch_size, budget.latency_threads)
    if budget.bounds_latency and wanted not in [(row.batch_size, row.threads) for row in rows]:
        rows += latency(
            bench.original,
            load_model(bench.folder.out / export.NAME),
            (budget.latency_batch_size,),
            budget.latency_threads,
            measuring.rounds,
            bench.spec.seed,
        )
    exported = bench.folder.out / export.NAME
    return Measured(
        latency=tuple(LatencyRow.model_validate(asdict(row)) for row in rows),
        peak_memory=peak_memory(bench.model_file.path, exported, measuring.threads, bench.spec.seed),
    )


STAGE = Stage("measure", Measured, run)
