"""A job on a model: its stages, one after the other, those that an earlier attempt finished left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models_store.documents.job_spec import JobKind
from models_store.documents.reports import AnyReport
from worker.order import Order
from worker.runner.estimating import curve, forecast, latency, sensitivity
from worker.runner.estimating import report as estimate_report
from worker.runner.interruption import Stopped
from worker.runner.stages import (
    baseline,
    estimate,
    evaluate,
    export,
    finetune,
    iterate,
    measure,
    prune,
    recover,
    regularise,
    report,
)
from worker.runner.voice import Voice
from worker.runner.workbench import Stage, Workbench
from worker.work_folder import WorkFolder

if TYPE_CHECKING:
    from worker.runner.crew import Crew

STAGES: Mapping[JobKind, tuple[Stage[Any], ...]] = {
    JobKind.PRUNE: (
        baseline.STAGE,
        iterate.STAGE,
        estimate.STAGE,
        regularise.STAGE,
        prune.STAGE,
        recover.STAGE,
        finetune.STAGE,
        evaluate.STAGE,
        export.STAGE,
        measure.STAGE,
        report.STAGE,
    ),
    JobKind.ESTIMATE: (
        latency.STAGE,
        sensitivity.STAGE,
        curve.STAGE,
        forecast.STAGE,
        estimate_report.STAGE,
    ),
}


def run_pipeline(order: Order, folder: WorkFolder, voice: Voice, crew: Crew | None = None) -> AnyReport:
    """Run every stage that applies; the report is the last one's document. `crew` trains together."""
    bench = Workbench(order, folder, voice, crew=crew)
    stages = STAGES[order.kind]
    resuming = True
    for stage in stages:
        reason = stage.reason_to_skip(bench)
        if reason is not None:
            voice.skip(stage.name, reason)
            continue
        resuming = resuming and bench.has(stage)
        if resuming:
            voice.keep(stage.name)
            continue
        with voice.stage(stage.name):
            bench.write(stage, stage.run(bench))
        bench.checkpoint()
        if bench.interruption.told_to_stop():
            raise Stopped
    found: AnyReport = bench.read(stages[-1])
    return found
