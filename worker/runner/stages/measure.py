"""measure: latency, peak memory and the times of layers, of the original and of the exported model, in turn, on this
machine."""

from __future__ import annotations

import logging
from dataclasses import asdict

import onnx
from pydantic import Field

from models_store.documents.base import Document
from models_store.documents.report import LatencyRow
from worker.engine.graph import load_model
from worker.engine.measure import Latency, latency, peak_memory
from worker.runner.layer_times import times_of_layers
from worker.runner.stages import export
from worker.runner.workbench import Stage, Workbench

logger = logging.getLogger(__name__)


class Measured(Document):
    """Latency: one row per batch size that the model can take. Peak memory in bytes: original and pruned."""

    latency: tuple[LatencyRow, ...]
    peak_memory: tuple[int, int] | None = None
    layers: dict[str, tuple[float | None, float | None]] = Field(default={}, description="Milliseconds, by name.")


def run(bench: Workbench) -> Measured:
    measuring, budget = bench.spec.measuring, bench.spec.budget
    exported = bench.folder.out / export.NAME
    sizes = {measuring.threads: measuring.batch_sizes}
    if budget.bounds_latency:  # in the same call, which runs a size once however often it comes
        sizes[budget.latency_threads] = (*sizes.get(budget.latency_threads, ()), budget.latency_batch_size)
    rows: list[Latency] = []
    for number, (threads, batch_sizes) in enumerate(sizes.items()):
        with bench.voice.share(number / len(sizes), (number + 1) / len(sizes)):
            rows += latency(
                bench.original,
                load_model(exported),
                batch_sizes,
                threads,
                measuring.rounds,
                bench.spec.seed,
                bench.voice.progress,
            )
    original = bench.folder.tmp / "original.onnx"
    onnx.save(bench.original, original)  # as every other measurement reads it
    peaks = peak_memory(original, exported, measuring.threads, bench.spec.seed)
    if peaks is None:
        logger.warning("peak memory is not known: a process that loads and runs the model did not come to its end")
    return Measured(
        latency=tuple(LatencyRow.model_validate(asdict(row)) for row in rows),
        peak_memory=peaks,
        layers=times_of_layers(bench),
    )


STAGE = Stage("measure", Measured, run)
