"""A job on a model: its stages, one after the other, those that an earlier attempt finished left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models_store.documents.job_spec import JobKind
from models_store.documents.reports import AnyReport
from worker.order import Order
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

_PRUNING: tuple[Stage[Any], ...] = (
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
)


def run_pipeline(order: Order, folder: WorkFolder, voice: Voice, crew: Crew | None = None) -> AnyReport:
    """Run every stage that applies; the report is the last one's document. `crew` trains together."""
    bench = Workbench(order, folder, voice, crew=crew)
    stages = _stages(order.kind)
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


def _stages(kind: JobKind) -> tuple[Stage[Any], ...]:
    if kind is JobKind.PRUNE:
        return _PRUNING
    # Imported here: estimates need torch, which a job without data does without.
    from worker.runner.estimating import curve, forecast, latency, report, sensitivity

    return (latency.STAGE, sensitivity.STAGE, curve.STAGE, forecast.STAGE, report.STAGE)
