"""A sweep from its row to its front, with workers of its own."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import onnx
import pytest

from models_store.documents.event import EventType
from models_store.documents.job import JobState
from models_store.documents.report import LatencyRow
from models_store.documents.sweep_report import Measured, SweepReport
from tests.sweep_reports import sweep_report
from tests.waiting import until
from tests.worker.orders import first_attempt
from tests.worker.plane import Plane
from worker.order import Order
from worker.runner.sweep import pareto_front, run_sweep
from worker.runner.voice import Voice
from worker.work_folder import WorkFolder

QUICK = {
    "finetuning": {"epochs": 1, "batch_size": 32},
    "recovery": {"reconstruction": False},
    "measuring": {"rounds": 3},
}


def test_points_run_on_all_workers_and_the_front_is_of_the_best(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    budgets = [{"macs_ratio": 0.8}, {"macs_ratio": 0.5}, {"macs_ratio": 0.2}]
    sweep = plane.submit(kind="sweep", **inputs, budgets=budgets, **QUICK)
    points = plane.points(sweep)
    plane.cancel(points[1])
    plane.start_worker(concurrency=1)
    plane.start_worker(concurrency=1)
    plane.start_sweeper()
    plane.ring()
    plane.ring()
    plane.wait(sweep, JobState.SUCCEEDED, timeout_s=240)
    report = SweepReport.model_validate(plane.report(sweep))

    assert [point.job_id for point in report.points] == points
    assert [point.state for point in report.points] == ["succeeded", "cancelled", "succeeded"]
    assert len(report.warnings) == 1
    assert points[1] in report.warnings[0]
    workers = {plane.job(id).worker for id in (points[0], points[2])}
    assert len(workers) == 2, "the points ran one after the other"
    for point in (report.points[0], report.points[2]):
        assert point.measured is not None
        assert point.measured.macs_ratio <= point.budget.lines()["macs_ratio"]
        stored = plane.artifacts(point.job_id)["pruned.onnx"]
        assert stored.sha256 == point.model_sha256
        assert point.model == f"/v1/jobs/{point.job_id}/artifacts/pruned.onnx"
        onnx.checker.check_model(onnx.load_model_from_string(b"".join(plane.blobs.stream(stored.blob_key))))
    front = [report.points[number].measured for number in report.front_macs]
    assert 2 in report.front_macs  # the fewest MACs are on it in any case
    assert [m.accuracy.top1 for m in front if m] == sorted({m.accuracy.top1 for m in front if m})

    artifacts = plane.artifacts(sweep)
    assert set(artifacts) == {"front.json", "front.svg", "report.html", "report.json"}
    files = {name: b"".join(plane.blobs.stream(each.blob_key)).decode() for name, each in artifacts.items()}
    assert [row["job_id"] for row in json.loads(files["front.json"])["macs"]] == [
        report.points[number].job_id for number in report.front_macs
    ]
    assert artifacts["front.svg"].media_type == "image/svg+xml"
    drawn = ElementTree.fromstring(files["front.svg"])  # noqa: S314  (made here)
    circles = [each for each in drawn.iter() if each.tag.endswith("circle")]
    assert len(circles) == 2 * 3  # two points and the original, over MACs and over latency
    assert "Fronts" in files["report.html"]
    assert "<dt>Criterion</dt><dd>refit</dd>" in files["report.html"]  # of its points: the sweep leaves it to them
    told = [event.data["progress"] for event in plane.events(sweep, EventType.PROGRESS)]
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_a_sweep_without_a_single_model_fails_with_the_reason(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    budgets = [{"macs_ratio": 0.5}, {"macs_ratio": 0.3}]
    sweep = plane.submit(kind="sweep", **inputs, budgets=budgets, pruning={"exclude": ["no such layer"]})
    plane.work()
    job = plane.wait(sweep, JobState.FAILED)
    assert job.error is not None
    assert job.error["code"] == "no_points"
    assert "no such layer" in job.error["message"]


def test_a_cancelled_sweep_stops_the_point_that_runs(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    budgets = [{"macs_ratio": 0.5}, {"macs_ratio": 0.3}]
    sweep = plane.submit(kind="sweep", **inputs, budgets=budgets, finetuning={"epochs": 1000, "batch_size": 8})
    first, second = plane.points(sweep)
    plane.start_worker()
    plane.ring()
    plane.wait_for_training(first)
    plane.cancel(sweep)
    assert plane.job(sweep).state is JobState.CANCELLED
    until(lambda: plane.job(first).state is JobState.CANCELLED, 30, "the running point to stop")
    assert plane.job(second).state is JobState.CANCELLED


def test_the_front_leaves_out_what_another_point_beats() -> None:
    points = [(0.5, 0.9), (0.3, 0.7), (0.4, 0.65), (0.8, 0.95), (0.9, 0.95), (0.3, 0.6)]
    assert pareto_front(points) == [1, 0, 3]
    assert pareto_front([]) == []
    assert pareto_front([(1.0, 0.5)]) == [0]


def _points(*measured: tuple[int, float, float | None] | None) -> Order:
    """The order of a sweep whose points have these MACs, top-1 and speed-ups; None for one without a model."""
    sample = sweep_report()
    known = sample.points[0].measured
    assert known is not None
    assert known.latency is not None

    def found(macs: int, top1: float, speedup: float | None, known: Measured, row: LatencyRow) -> Measured:
        return known.model_copy(
            update={
                "pruned": known.pruned.model_copy(update={"macs": macs}),
                "accuracy": known.accuracy.model_copy(update={"top1": top1}),
                "latency": None if speedup is None else row.model_copy(update={"speedup": speedup}),
            }
        )

    points = [
        sample.points[0].model_copy(
            update={
                "job_id": f"job_{number:032x}",
                "measured": None if each is None else found(*each, known, known.latency),
            }
        )
        for number, each in enumerate(measured)
    ]
    return first_attempt(kind="sweep", spec=sample.spec, model=None, dataset=None, events_fd=0, points=points)


def test_each_front_has_the_cheapest_first_and_points_keep_their_numbers(tmp_path: Path) -> None:
    """A point that is beaten over MACs may be the fastest. One has no model, another one no latency."""
    folder = WorkFolder(tmp_path / "work")
    folder.create()
    order = _points(None, (8000, 0.95, 1.2), (5000, 0.90, 1.1), (6000, 0.80, 3.0), (2000, 0.70, None))
    with Path(os.devnull).open("w") as silence:
        report = run_sweep(order, folder, Voice(silence.fileno()))
    assert report.front_macs == (4, 2, 1)
    assert report.front_latency == (3, 1)
    fronts = json.loads((folder.out / "front.json").read_bytes())
    jobs = {name: [row["job_id"] for row in rows] for name, rows in fronts.items()}
    assert jobs == {
        "macs": [order.points[number].job_id for number in (4, 2, 1)],
        "latency": [order.points[number].job_id for number in (3, 1)],
    }
    assert [row["speedup"] for row in fronts["latency"]] == [3.0, 1.2]
