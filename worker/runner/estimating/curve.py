"""curve: what is lost and gained at a grid of budgets, all layers together."""

from __future__ import annotations

from collections.abc import Callable

from models_store.documents.base import Document
from worker.engine.allocation import Allocation, macs_limit, size_limit
from worker.engine.errors import EngineError
from worker.engine.probe import Objective, Probe
from worker.engine.surgery import Plan
from worker.runner.budget import latency_table
from worker.runner.estimating import sensitivity
from worker.runner.stages.estimate import allocate_within, channel_scores
from worker.runner.workbench import Stage, Workbench

_CALIBRATION_IMAGES = 128


class Point(Document):
    """The plan for one budget, as the report has it but for the forecast."""

    macs_goal: float
    macs_ratio: float
    params_ratio: float
    size_bytes: int
    latency_ms: float
    speedup: float
    loss: float | None
    top1: float | None
    top1_reestimated: float | None


class Curve(Document):
    points: tuple[Point, ...]


def run(bench: Workbench) -> Curve:
    analysis, scores = bench.analysis, channel_scores(bench)
    ratios = sorted(set(bench.estimated.macs_ratios), reverse=True)
    plans = [allocate_within(bench, scores, [macs_limit(analysis, ratio)]) for ratio in ratios]
    bench.voice.progress(0.2)
    answers: list[tuple[float | None, float | None]] = [(None, None)] * len(plans)
    if bench.read(sensitivity.STAGE).measure == "output_change":
        probe = Probe(analysis, sensitivity.images_of(bench))
        found = probe.responses([p.plan for p in plans], lambda share: bench.voice.progress(0.2 + 0.4 * share))
        answers = [(response.change, response.top1) for response in found]
    worth = _objective(bench)
    points = []
    for done, (goal, plan, (loss, top1)) in enumerate(zip(ratios, plans, answers, strict=True), start=1):
        points.append(_point(bench, goal, plan, loss, top1, worth))
        bench.voice.progress(0.6 + 0.4 * done / len(plans))
    return Curve(points=tuple(points))


def _point(
    bench: Workbench,
    goal: float,
    found: Allocation,
    loss: float | None,
    top1: float | None,
    worth: Callable[[Plan], float] | None,
) -> Point:
    analysis, table = bench.analysis, latency_table(bench)
    kept = found.plan.counts(analysis)
    size = size_limit(analysis, 1.0, bench.model_file.path.stat().st_size)
    latency = float(table.cost(kept))
    return Point(
        macs_goal=goal,
        macs_ratio=found.macs / max(analysis.macs, 1),
        params_ratio=found.params / max(analysis.params, 1),
        size_bytes=round(float(size.cost(kept))),
        latency_ms=latency,
        speedup=table.whole / max(latency, 1e-9),
        loss=loss,
        top1=top1,
        top1_reestimated=None if worth is None else worth(found.plan),
    )


def _objective(bench: Workbench) -> Callable[[Plan], float] | None:
    """Accuracy of a plan with norms taken anew; None where there are no labels or no norms."""
    if bench.dataset is None or not bench.dataset.labelled or not bench.work.recovery.reestimates:
        return None
    try:
        objective = Objective(
            bench.analysis,
            bench.dataset,
            images=bench.estimated.images,
            calibration_images=_CALIBRATION_IMAGES,
            seed=bench.work.seed,
        )
    except EngineError as error:
        bench.voice.log(f"norms are not re-estimated: {error.message}", "warning")
        return None
    return (lambda plan: objective(plan).top1) if objective.has_norms else None


STAGE = Stage("curve", Curve, run)
