"""Budgets of several lines: verdicts by themselves, and a job that keeps all of its lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from models_store.documents.job import JobState
from models_store.documents.job_spec import Budget
from models_store.documents.report import Accuracy, AccuracyRows, Cost, LatencyRow, LatencySummary, Report
from tests.worker.networks import coloured_squares, convnet, fixed_batch
from tests.worker.plane import Plane
from worker.engine.allocation import Allocation, allocate, size_limit
from worker.engine.criteria import score
from worker.engine.data import DataOptions, InputSpec, open_dataset
from worker.engine.graph import analyze
from worker.engine.recovery import FinetuneOptions, finetune
from worker.engine.surgery import prune
from worker.engine.torch_form import build
from worker.runner.budget import latency_excess, verdicts

ORIGINAL = Cost(params=100, macs=1000, flops=2000, size_bytes=4000)
PRUNED = Cost(params=60, macs=480, flops=960, size_bytes=2500)
SUMMARY = LatencySummary(p50_ms=3.0, p90_ms=3.1, p99_ms=3.2)
ROW = LatencyRow(
    batch_size=1,
    threads=1,
    rounds=30,
    original=LatencySummary(p50_ms=6.0, p90_ms=6.1, p99_ms=6.2),
    pruned=SUMMARY,
    speedup=2.0,
    speedup_low=1.9,
    speedup_high=2.1,
    noise=0.05,
)


def _accuracy(top1: float) -> Accuracy:
    return Accuracy(top1=top1, loss=1.0, samples=100)


ACCURACY = AccuracyRows(original=_accuracy(0.9), after_cut=_accuracy(0.5), final=_accuracy(0.87), changed_labels=0.1)


@pytest.mark.parametrize(
    ("line", "value", "verdict"),
    [
        ({"macs_ratio": 0.5}, 0.48, "met"),
        ({"macs_ratio": 0.4}, 0.48, "missed"),
        ({"params_ratio": 0.6}, 0.6, "met"),
        ({"size_bytes": 2499}, 2500, "missed"),
        ({"latency_ratio": 0.5}, 0.5, "met"),
        ({"latency_ms": 2.5}, 3.0, "missed"),
        ({"max_accuracy_drop": 0.05}, 0.03, "met"),
        ({"max_accuracy_drop": 0.01}, 0.03, "missed"),
    ],
)
def test_verdict_per_line(line: dict[str, float], value: float, verdict: str) -> None:
    (found,) = verdicts(Budget.model_validate(line), {}, ORIGINAL, PRUNED, (ROW,), ACCURACY)
    assert found.value == pytest.approx(value)
    assert found.verdict == verdict


def test_what_no_plan_keeps_is_unreachable_and_says_why() -> None:
    reasons = {"macs_ratio": "the rest is pinned", "latency_ratio": "nothing is faster"}
    budget = Budget(macs_ratio=0.1, latency_ms=1.0, params_ratio=0.7)
    found = {line.name: line for line in verdicts(budget, reasons, ORIGINAL, PRUNED, (ROW,), None)}
    assert (found["macs_ratio"].verdict, found["macs_ratio"].reason) == ("unreachable", "the rest is pinned")
    assert (found["latency_ms"].verdict, found["latency_ms"].reason) == ("unreachable", "nothing is faster")
    assert found["params_ratio"].verdict == "met"


def test_what_measures_below_the_goal_is_met_whatever_was_estimated() -> None:
    reasons = {"latency_ratio": "the smallest widths take longer, by the times of the layers"}
    (found,) = verdicts(Budget(latency_ratio=0.5), reasons, ORIGINAL, PRUNED, (ROW,), None)
    assert (found.verdict, found.reason) == ("met", "")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"size_bytes": 2499}, "estimated smaller"),
        ({"latency_ratio": 0.4}, "as measured"),
        ({"latency_ms": 2.5}, "as measured"),
        ({"max_accuracy_drop": 0.01}, "not won back"),
    ],
)
def test_what_is_missed_says_why(line: dict[str, float], why: str) -> None:
    (found,) = verdicts(Budget.model_validate(line), {}, ORIGINAL, PRUNED, (ROW,), ACCURACY)
    assert found.verdict == "missed"
    assert why in found.reason


def test_an_accuracy_drop_of_exactly_the_goal_is_met() -> None:
    accuracy = AccuracyRows(
        original=_accuracy(0.92), after_cut=_accuracy(0.5), final=_accuracy(0.91), changed_labels=0.1
    )
    (found,) = verdicts(Budget(max_accuracy_drop=0.01), {}, ORIGINAL, PRUNED, (ROW,), accuracy)
    assert found.value > 0.01
    assert found.verdict == "met"


@pytest.mark.parametrize("line", [{"latency_ratio": 0.5}, {"latency_ms": 3.5}])
def test_a_fixed_batch_is_judged_at_its_own_size(line: dict[str, float]) -> None:
    rows = (
        ROW.model_copy(update={"batch_size": 4, "threads": 2, "speedup": 1.0}),
        ROW.model_copy(update={"batch_size": 4}),
    )
    (found,) = verdicts(Budget.model_validate(line), {}, ORIGINAL, PRUNED, rows, None)
    assert (found.name, found.verdict) == (next(iter(line)), "met")


def test_latency_excess_is_that_of_the_line_furthest_off() -> None:
    assert latency_excess(Budget(latency_ratio=0.4), ROW) == pytest.approx(1.25)
    assert latency_excess(Budget(latency_ratio=0.4, latency_ms=1.0), ROW) == pytest.approx(3.0)


@pytest.fixture
def inputs(plane: Plane) -> dict[str, str]:
    model_id, first = plane.upload_model(convnet(width=48).SerializeToString())
    dataset_id, second = plane.upload_dataset(coloured_squares(), "npz")
    plane.work()
    for job_id in (first, second):
        plane.wait(job_id, JobState.SUCCEEDED)
    return {"model_id": model_id, "dataset_id": dataset_id}


def test_a_job_keeps_a_mix_of_lines(plane: Plane, inputs: dict[str, str]) -> None:
    """The latency is one that is kept whatever else this machine does meanwhile."""
    budget = {"params_ratio": 0.6, "size_bytes": 60_000, "latency_ms": 1000, "latency_batch_size": 2}
    job = plane.submit(
        **inputs,
        budget={**budget, "max_accuracy_drop": 1.0},
        pruning={"criterion": "apoz", "allocation": "latency"},
        finetuning={"epochs": 0},
        measuring={"rounds": 3},
    )
    plane.work()
    plane.wait(job, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job))
    assert [line.name for line in report.budget] == ["params_ratio", "size_bytes", "latency_ms", "max_accuracy_drop"]
    assert [line.verdict for line in report.budget] == ["met"] * 4
    assert (2, 1) in [(row.batch_size, row.threads) for row in report.latency]


def test_a_job_on_a_fixed_batch_tells_of_its_latency_and_measures_it_once(plane: Plane) -> None:
    model_id, _ = plane.upload_model(fixed_batch(convnet(), 4).SerializeToString())
    plane.work()
    job = plane.submit(model_id=model_id, budget={"latency_ms": 1000}, measuring={"rounds": 3})
    plane.work()
    plane.wait(job, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job))
    assert [(line.name, line.verdict) for line in report.budget] == [("latency_ms", "met")]
    assert [(row.batch_size, row.threads) for row in report.latency] == [(4, 1)]
    assert not any("batch size is fixed" in line for line in report.warnings)


def test_a_file_that_comes_out_larger_than_estimated_is_cut_again(plane: Plane) -> None:
    """One stored vector serves every norm: the estimate counts one for each, the file holds it once until norms of
    different widths need copies."""
    network = convnet(width=64, depth=4)
    first, *others = [f"bn{i}.mean" for i in range(4)]
    for node in network.graph.node:
        node.input[:] = [first if name in others else name for name in node.input]
    stored = [tensor for tensor in network.graph.initializer if tensor.name not in others]
    del network.graph.initializer[:]
    network.graph.initializer.extend(stored)
    model_id, _ = plane.upload_model(network.SerializeToString())
    plane.work()
    pruning = {"criterion": "l2", "allocation": "global", "round_to": 1}
    analysis, size = analyze(network), network.ByteSize()

    def planned(goal: float) -> Allocation:
        return allocate(
            analysis, score(analysis, "l2"), [size_limit(analysis, goal, size)], method="global", round_to=1
        )

    goal = int(planned(100_000).lines[0].value)
    assert prune(analysis, planned(goal).plan).ByteSize() > goal
    job = plane.submit(model_id=model_id, budget={"size_bytes": goal}, pruning=pruning, measuring={"rounds": 3})
    plane.work()
    plane.wait(job, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job))
    assert [(line.name, line.verdict) for line in report.budget] == [("size_bytes", "met")]


def test_a_batch_size_that_a_model_does_not_take_is_told_of(plane: Plane) -> None:
    """As where the inspection could not tell that it is fixed."""
    model_id, _ = plane.upload_model(fixed_batch(convnet(), 4).SerializeToString())
    plane.work()
    budget = {"latency_ms": 1000, "latency_batch_size": 32}
    measuring = {"rounds": 3, "batch_sizes": [4, 2]}
    job = plane.submit(model_id=model_id, budget=budget, measuring=measuring)
    plane.work()
    plane.wait(job, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job))
    assert [row.batch_size for row in report.latency] == [4]
    assert [line for line in report.warnings if "batch size" in line] == [
        "the model's batch size is fixed: latency was measured and judged at 4, not at 2, 32."
    ]


def test_a_search_tells_what_it_looked_at(plane: Plane, inputs: dict[str, str]) -> None:
    options = {"evaluations": 6, "images": 24, "calibration_images": 16}
    job = plane.submit(
        **inputs,
        budget={"macs_ratio": 0.4, "params_ratio": 0.6},
        pruning={"criterion": "l1", "allocation": "tpe", "allocation_options": options},
        recovery={"reconstruction": False},
        finetuning={"epochs": 0},
        measuring={"rounds": 3},
    )
    plane.work()
    plane.wait(job, JobState.SUCCEEDED)
    report = Report.model_validate(plane.report(job))
    assert [line.verdict for line in report.budget] == ["met", "met"]
    search = report.search
    assert search is not None
    assert (search.method, search.line, len(search.candidates)) == ("tpe", "macs_ratio", 6)
    assert all(candidate.cost <= 0.4 for candidate in search.candidates)
    assert search.candidates[search.best].top1 == max(candidate.top1 for candidate in search.candidates)
    page = b"".join(plane.blobs.stream(plane.artifacts(job)["report.html"].blob_key)).decode()
    assert "Search for the allocation" in page
    assert page.count("candidate: ") == 6


def trained(images: bytes, folder: Path) -> bytes:
    (folder / "images.npz").write_bytes(images)
    form = build(convnet(classes=12, width=48))
    dataset = open_dataset(folder / "images.npz", InputSpec.of(form.model), DataOptions())
    assert finetune(form, dataset, FinetuneOptions(epochs=12, learning_rate=0.05)).best_epoch > 0
    return form.write_back().SerializeToString()


@pytest.mark.slow
def test_accuracy_alone_asks_for_the_fewest_macs_that_recovery_leaves_accurate(plane: Plane, tmp_path: Path) -> None:
    images = coloured_squares(400, classes=12)
    model_id, _ = plane.upload_model(trained(images, tmp_path))
    dataset_id, _ = plane.upload_dataset(images, "npz")
    plane.work()
    kept = []
    for recovery in ({"bn_reestimation": False, "reconstruction": False}, {}):
        job = plane.submit(
            model_id=model_id,
            dataset_id=dataset_id,
            budget={"max_accuracy_drop": 0.03},
            pruning={"criterion": "l2", "round_to": 1},
            recovery=recovery,
            finetuning={"epochs": 0},
            measuring={"rounds": 3},
        )
        plane.work()
        plane.wait(job, JobState.SUCCEEDED)
        report = Report.model_validate(plane.report(job))
        assert [line.name for line in report.budget] == ["max_accuracy_drop"]
        kept.append(report.pruned.macs / report.original.macs)
    assert kept[1] < kept[0] < 1
