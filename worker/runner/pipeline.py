"""A prune job: its stages, one after the other."""

from __future__ import annotations

from typing import Any

from models_store.documents.report import Report
from worker.order import Order
from worker.runner.stages import baseline, estimate, evaluate, export, finetune, measure, prune, report
from worker.runner.voice import Voice
from worker.runner.workbench import Stage, Workbench
from worker.work_folder import WorkFolder

STAGES: tuple[Stage[Any], ...] = (
    baseline.STAGE,
    estimate.STAGE,
    prune.STAGE,
    finetune.STAGE,
    evaluate.STAGE,
    export.STAGE,
    measure.STAGE,
    report.STAGE,
)


def run_pipeline(order: Order, folder: WorkFolder, voice: Voice) -> Report:
    """Run every stage that applies; the report is the last one's document."""
    bench = Workbench(order, folder, voice)
    for stage in STAGES:
        reason = stage.reason_to_skip(bench)
        if reason is not None:
            voice.skip(stage.name, reason)
            continue
        with voice.stage(stage.name):
            bench.write(stage, stage.run(bench))
    return bench.read(report.STAGE)
