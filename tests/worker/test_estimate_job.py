"""An estimate job from its row to its report, on the digits network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from onnx import helper

from espalier.demo_network import digits, export, train
from models_store.documents.estimate_report import EstimateReport
from models_store.documents.event import ESTIMATE_STAGES
from models_store.documents.job import JobState
from tests.worker.networks import convnet
from tests.worker.plane import Plane
from worker.engine.graph import analyze, load_model


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    export(train(digits(), epochs=3), path)
    return path


def estimated(plane: Plane, job_id: str) -> EstimateReport:
    job = plane.wait(job_id, JobState.SUCCEEDED)
    assert {stage["name"]: stage["state"] for stage in job.stages} == dict.fromkeys(ESTIMATE_STAGES, "done")
    assert job.progress == 1.0
    return EstimateReport.model_validate(plane.report(job_id))


def test_with_data(plane: Plane, network: Path, tmp_path: Path) -> None:
    digits().save(tmp_path / "digits.npz")
    model_id, _ = plane.upload_model(network.read_bytes())
    dataset_id, _ = plane.upload_dataset((tmp_path / "digits.npz").read_bytes(), "npz")
    job_id = plane.submit(
        kind="estimate",
        model_id=model_id,
        dataset_id=dataset_id,
        keep_ratios=(0.75, 0.25),
        macs_ratios=(0.8, 0.5, 0.2),
        images=100,
        finetuning={"epochs": 2},
    )
    plane.work()
    report = estimated(plane, job_id)

    assert report.measure == "output_change"
    assert report.measured_on == "100 validation images"
    assert report.original_top1 is not None
    assert report.original_top1 > 0.8
    analysis = analyze(load_model(network))
    assert len(report.sensitivity) == len(analysis.widths)
    for row in report.sensitivity:
        assert [cut.keep_ratio for cut in row.cuts] == pytest.approx([0.75, 0.25], abs=0.02)
        assert row.cuts[0].macs_ratio > row.cuts[1].macs_ratio
        assert 0 < row.cuts[0].loss < row.cuts[1].loss
        assert all(cut.top1 is not None for cut in row.cuts)
    assert 0 < sum(row.macs_share for row in report.sensitivity) <= 2  # a layer's MACs hang on two widths

    assert [point.macs_goal for point in report.curve] == [0.8, 0.5, 0.2]
    for point in report.curve:
        assert point.macs_ratio <= point.macs_goal
        assert point.top1_reestimated is not None
        assert point.top1_reestimated >= (point.top1 or 0) - 0.05
    losses = [point.loss for point in report.curve]
    assert losses == sorted(losses, key=lambda loss: loss or 0)
    latencies = [point.latency_ms for point in report.curve]
    assert latencies == sorted(latencies, reverse=True)
    assert [layer.name for layer in report.pinned] == [
        layer.name for layer in analysis.layers if layer.pinned_reason is not None
    ]
    assert all(layer.reason for layer in report.pinned)

    forecast = report.forecast
    assert {stage.name for stage in forecast.stages} >= {"prune", "finetune", "recover", "evaluate", "measure"}
    assert forecast.total_s == pytest.approx(sum(stage.seconds for stage in forecast.stages))
    assert [point.job_s for point in report.curve] == sorted((p.job_s for p in report.curve), reverse=True)
    assert forecast.memory is not None
    assert forecast.memory.batch_size == 128
    assert forecast.memory.activations_bytes > 128 * 4 * 48 * 64  # one feature map of the first layer
    assert "of the original, its teacher" in forecast.memory.how
    (training,) = (stage for stage in forecast.stages if stage.name == "finetune")
    numbers = re.match(
        r"2 epochs of (\d+) images, (\S+) ms per image: .*; with (\S+) ms more for the original", training.how
    )
    assert numbers is not None
    images, step, teacher = map(float, numbers.groups())
    assert teacher > 0
    assert training.seconds > 0.98 * 2 * images * (step + teacher) / 1000  # the validation comes on top

    assert set(plane.artifacts(job_id)) == {"report.html", "report.json"}
    stored = plane.artifacts(job_id)["report.json"]
    assert EstimateReport.model_validate(json.loads(b"".join(plane.blobs.stream(stored.blob_key)))) == report
    page = b"".join(plane.blobs.stream(plane.artifacts(job_id)["report.html"].blob_key)).decode()
    assert "Sensitivity of each layer" in page
    assert "Layers that stay" in page


def test_without_data(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    job_id = plane.submit(kind="estimate", model_id=inputs["model_id"], macs_ratios=(0.5,))
    plane.work()
    report = estimated(plane, job_id)
    assert report.measured_on == "2 random inputs"
    assert report.original_top1 is None
    assert all(cut.loss > 0 and cut.top1 is None for row in report.sensitivity for cut in row.cuts)
    assert {stage.name for stage in report.forecast.stages} == {"start", "estimate", "prune", "measure"}
    assert report.forecast.budget[0].verdict == "met"


def test_a_network_that_torch_cannot_run_is_estimated_from_its_weights(plane: Plane) -> None:
    model = convnet()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "SampleOp", "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)
    model_id, _ = plane.upload_model(model.SerializeToString())
    job_id = plane.submit(kind="estimate", model_id=model_id, macs_ratios=(0.5,))
    plane.work()
    report = estimated(plane, job_id)
    assert report.measure == "importance"
    assert any("could not be run with masks" in warning for warning in report.warnings)
    assert report.curve[0].loss is None
    assert report.forecast.memory is None


def test_of_a_network_that_gives_no_numbers_is_refused_with_the_reason(plane: Plane) -> None:
    model = convnet()
    head = next(node for node in model.graph.node if node.op_type == "Gemm")
    head.output[0] = "scores"
    model.graph.node.append(helper.make_node("Log", ["negative"], ["logits"]))
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Neg", ["size"], ["negative"]))
    model.graph.node.insert(len(model.graph.node) - 2, helper.make_node("Abs", ["scores"], ["size"]))
    model_id, _ = plane.upload_model(model.SerializeToString())
    job_id = plane.submit(kind="estimate", model_id=model_id, macs_ratios=(0.5,))
    plane.work()
    error = plane.wait(job_id, JobState.FAILED).error
    assert error is not None
    assert (error["code"], error["error_class"]) == ("not_finite", "user")
