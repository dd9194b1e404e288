"""The end of a sweep: its points' reports put together, and the fronts of the best."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from models_store.documents.event import SWEEP_STAGES
from models_store.documents.job_spec import SweepSpec
from models_store.documents.report import Machine
from models_store.documents.sweep_report import Measured, SweepPoint, SweepReport
from worker.engine.errors import EngineError
from worker.engine.measure import machine
from worker.order import Order
from worker.runner.artifact import describe
from worker.runner.html_report.sweep_page import render_sweep, render_sweep_plot
from worker.runner.voice import Voice
from worker.work_folder import WorkFolder


def run_sweep(order: Order, folder: WorkFolder, voice: Voice) -> SweepReport:
    """Write front.json, front.svg, report.html and report.json. Raises EngineError where no point has a model."""
    points, front = SWEEP_STAGES
    if order.attempt > 1:
        voice.keep(points)
    with voice.stage(front):
        report = _assemble(order)
        for warning in report.warnings:
            voice.log(warning, "warning")
        (folder.out / "front.json").write_text(json.dumps(_front(report), indent=2) + "\n")
        (folder.out / "front.svg").write_text(render_sweep_plot(report))
        (folder.out / "report.html").write_text(render_sweep(report))
        files = tuple(describe(folder.out / name) for name in ("front.json", "front.svg", "report.html"))
        report = report.model_copy(update={"artifacts": files, "stage_seconds": voice.seconds_so_far()})
        (folder.out / "report.json").write_text(report.model_dump_json(indent=2))
    return report


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Of (cost, worth) pairs the numbers of those that no other one beats: none is worth as much for less, or more for
    as much. In the order of their cost."""
    found, best = [], float("-inf")
    for number in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if points[number][1] > best:
            found.append(number)
            best = points[number][1]
    return found


def _assemble(order: Order) -> SweepReport:
    if not isinstance(order.spec, SweepSpec):
        raise ValueError("a sweep has the spec of one")
    measured = [(number, point.measured) for number, point in enumerate(order.points) if point.measured]
    if not measured:
        raise EngineError(
            "no_points",
            f"None of the sweep's {len(order.points)} points has a model. The first: {_why(order.points[0])}.",
            "GET /v1/jobs?parent_id= lists the points with their errors.",
        )
    first = next(point for point in order.points if point.measured)
    return SweepReport(
        job_id=order.job_id,
        attempt=order.attempt,
        spec=order.spec,
        model_name=first.model_name or "",
        original_sha256=first.original_sha256 or "",
        dataset_sha256=first.dataset_sha256,
        points=order.points,
        front_macs=_front_over(measured, lambda m: m.macs_ratio),
        front_latency=_front_over([(i, m) for i, m in measured if m.latency], _time),
        warnings=tuple(
            f"The point {describe_budget(point)} has no model: {_why(point)} ({point.job_id})."
            for point in order.points
            if point.measured is None
        ),
        machine=Machine(**asdict(machine()), sandbox=order.sandbox),
        artifacts=(),
        stage_seconds={},
    )


def _front_over(measured: list[tuple[int, Measured]], cost: Callable[[Measured], float]) -> tuple[int, ...]:
    found = pareto_front([(cost(each), each.accuracy.top1) for _, each in measured])
    return tuple(measured[number][0] for number in found)


def _time(measured: Measured) -> float:
    """Latency relative to the original's, in the same process: points may have run on different machines."""
    return 1 / measured.latency.speedup if measured.latency else float("inf")


def describe_budget(point: SweepPoint) -> str:
    """Such as `macs_ratio 0.5`."""
    return ", ".join(f"{name} {goal:g}" for name, goal in point.budget.lines().items())


def _why(point: SweepPoint) -> str:
    return point.error.message.rstrip(".") if point.error else f"it was {point.state}"


def _front(report: SweepReport) -> dict[str, object]:
    """The two fronts for programs: each point with its model."""

    def rows(numbers: tuple[int, ...]) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for number in numbers:
            point, measured = report.points[number], report.points[number].measured
            if measured is None:
                continue
            found.append(
                {
                    "job_id": point.job_id,
                    "model": point.model,
                    "sha256": point.model_sha256,
                    "top1": measured.accuracy.top1,
                    "macs_ratio": measured.macs_ratio,
                    "speedup": measured.latency.speedup if measured.latency else None,
                }
            )
        return found

    return {"macs": rows(report.front_macs), "latency": rows(report.front_latency)}
