"""report: everything that the stages found, as one document and one page."""

from __future__ import annotations

from dataclasses import asdict

from models_store.documents.report import Machine, Report, RoundRow
from worker.engine.graph.padded_pools import kept_apart
from worker.engine.measure import machine
from worker.runner.accuracy import heads
from worker.runner.artifact import describe
from worker.runner.budget import latency_row, other_batch_sizes, verdicts
from worker.runner.findings import warnings
from worker.runner.html_report import render
from worker.runner.layer_times import with_times
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
)
from worker.runner.workbench import Stage, Workbench


def run(bench: Workbench) -> Report:
    """Write report.html and report.json among the artifacts; the page lists those that were there before it."""
    report = _assemble(bench)
    for warning in report.warnings:
        bench.voice.log(warning, "warning")
    page = bench.folder.out / "report.html"
    page.write_text(render(report))
    report = report.model_copy(update={"artifacts": (*report.artifacts, describe(page))})
    (bench.folder.out / "report.json").write_text(report.model_dump_json(indent=2))
    return report


def _assemble(bench: Workbench) -> Report:
    estimated = bench.read(estimate.STAGE)
    pruned = bench.read(prune.STAGE)
    regularised = bench.read_if_run(regularise.STAGE)
    recovered = bench.read_if_run(recover.STAGE)
    finetuned = bench.read_if_run(finetune.STAGE)
    evaluated = bench.read_if_run(evaluate.STAGE)
    exported = bench.read(export.STAGE)
    measured = bench.read(measure.STAGE)
    latency = measured.latency
    before, after = measured.peak_memory or (None, None)
    began = bench.read(baseline.STAGE)
    original = began.cost.model_copy(update={"peak_memory_bytes": before})
    smaller = exported.cost.model_copy(update={"peak_memory_bytes": after})
    accuracy = evaluated.accuracy if evaluated else None
    fidelity = evaluated.fidelity if evaluated else None
    reasons = {line.name: line.reason for line in estimated.lines}
    judged = verdicts(bench.spec.budget, reasons, original, smaller, latency, accuracy)
    report = Report(
        job_id=bench.order.job_id,
        attempt=bench.order.attempt,
        spec=bench.spec,
        model_name=bench.model_file.name,
        model_sha256=bench.model_file.sha256,
        onnx_sha256=describe(bench.model_file.path).sha256,
        dataset_sha256=bench.order.dataset.sha256 if bench.order.dataset else None,
        original=original,
        pruned=smaller,
        budget=judged,
        accuracy=accuracy,
        fidelity=fidelity,
        latency=latency,
        layers=with_times(pruned.layers, measured.layers),
        proof=pruned.proof,
        kernels=pruned.kernels,
        random_masks=tuple(m for m in (estimated.masks, pruned.kernel_masks) if m is not None),
        search=estimated.search,
        parity=next((stage.parity for stage in (finetuned, recovered) if stage), None),
        regularisation=regularised.training if regularised else None,
        doomed_left=regularised.doomed_left if regularised else None,
        recovery=recovered.recovery if recovered else None,
        training=finetuned.training if finetuned else None,
        exports=exported.further,
        missing_exports=exported.missing,
        warnings=(
            *other_batch_sizes(bench.spec, latency),
            *warnings(
                original=original,
                layers=pruned.layers,
                pruned=smaller,
                latency=latency,
                budget=judged,
                round_to=bench.spec.pruning.round_to,
                nodes_outside_torch=finetuned.nodes_outside_torch if finetuned else (),
                methods=bench.spec.pruning.methods().values(),
                kernels=pruned.kernels,
                missing=exported.missing,
                zeros=kept_apart(bench.original),
                heads=heads(bench),
            ),
            *(regularised.warnings(bench.spec) if regularised else ()),
            *(recovered.warnings if recovered else ()),
            *([began.converted] if began.converted else []),
        ),
        machine=_machine(bench),
        artifacts=(exported.artifact, *exported.further_artifacts),
        stage_seconds=bench.voice.stage_seconds,
    )
    iterated = bench.read_if_run(iterate.STAGE)
    if iterated is None:
        return report
    return report.model_copy(update={"rounds": (*iterated.rounds, _last_round(report))})


def _last_round(report: Report) -> RoundRow:
    """What the stages behind `iterate` made, as a row of the schedule."""
    budget = report.spec.budget
    fast = latency_row(budget, report.latency) if budget.bounds_latency else None
    return RoundRow(
        step=report.spec.schedule.steps if report.spec.schedule is not None else 1,
        budget=budget,
        macs=report.pruned.macs,
        params=report.pruned.params,
        macs_ratio=report.pruned.macs / max(report.original.macs, 1),
        params_ratio=report.pruned.params / max(report.original.params, 1),
        latency_ratio=1 / fast.speedup if fast is not None else None,
        proof=report.proof,
        top1_after_cut=report.accuracy.after_cut.top1 if report.accuracy is not None else None,
        top1=report.accuracy.final.top1 if report.accuracy is not None else None,
        training=report.training,
        seconds=sum(report.stage_seconds.get(name, 0.0) for name in ("estimate", "prune", "recover", "finetune")),
    )


def _machine(bench: Workbench) -> Machine:
    return Machine(**asdict(machine()), sandbox=bench.order.sandbox)


STAGE = Stage("report", Report, run)
