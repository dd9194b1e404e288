"""report: everything that the estimate found, as one document and one page."""

from __future__ import annotations

from dataclasses import asdict

from models_store.documents.estimate_report import CurvePoint, EstimateReport, PinnedLayer
from models_store.documents.report import Machine
from worker.engine.graph import Analysis
from worker.engine.measure import machine
from worker.engine.measure.batch_size import batch_taken
from worker.runner.accuracy import heads
from worker.runner.artifact import describe
from worker.runner.cost import cost
from worker.runner.estimating import curve, forecast, latency, sensitivity
from worker.runner.findings import reconstructed, several_heads
from worker.runner.html_report.estimate_page import render_estimate
from worker.runner.workbench import Stage, Workbench


def run(bench: Workbench) -> EstimateReport:
    """Write report.html and report.json."""
    report = _assemble(bench)
    for warning in report.warnings:
        bench.voice.log(warning, "warning")
    page = bench.folder.out / "report.html"
    page.write_text(render_estimate(report))
    report = report.model_copy(update={"artifacts": (describe(page),)})
    (bench.folder.out / "report.json").write_text(report.model_dump_json(indent=2))
    return report


def _assemble(bench: Workbench) -> EstimateReport:
    found, forecasted = bench.read(sensitivity.STAGE), bench.read(forecast.STAGE)
    spec, analysis = bench.estimated, bench.analysis
    points = tuple(
        CurvePoint(**point.model_dump(), job_s=forecasted.total_at(point.macs_ratio))
        for point in bench.read(curve.STAGE).points
    )
    return EstimateReport(
        job_id=bench.order.job_id,
        attempt=bench.order.attempt,
        spec=spec,
        model_name=bench.model_file.name,
        model_sha256=bench.model_file.sha256,
        dataset_sha256=bench.order.dataset.sha256 if bench.order.dataset else None,
        original=cost(analysis.macs, analysis.params, bench.model_file.path),
        original_latency_ms=bench.read(latency.STAGE).original_ms,
        latency_batch_size=batch_taken(analysis, spec.budget.latency_batch_size),
        latency_threads=spec.budget.latency_threads,
        measure=found.measure,
        measured_on=found.measured_on,
        original_top1=found.original_top1,
        sensitivity=found.layers,
        curve=points,
        pinned=_pinned(analysis),
        forecast=forecasted.forecast,
        warnings=(
            *found.warnings,
            *forecasted.warnings,
            *several_heads(heads(bench)),
            *reconstructed(spec.pruning.methods().values()),
        ),
        machine=Machine(**asdict(machine()), sandbox=bench.order.sandbox),
        artifacts=(),
        stage_seconds=bench.voice.stage_seconds,
    )


def _pinned(analysis: Analysis) -> tuple[PinnedLayer, ...]:
    return tuple(
        PinnedLayer(
            name=layer.name,
            op=layer.op,
            channels=layer.channels,
            macs_share=layer.macs / max(analysis.macs, 1),
            reason=layer.pinned_reason,
        )
        for layer in analysis.layers
        if layer.pinned_reason is not None
    )


STAGE = Stage("report", EstimateReport, run)
