"""Jobs that prune kernels: every layout from its spec to the exported file."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from pydantic import ValidationError

from models_store.documents.job import JobState
from models_store.documents.job_spec import JobSpec
from models_store.documents.report import Report
from tests.worker.plane import Plane

QUICK = {"rounds": 3}


def _run(plane: Plane, inputs: dict[str, str], **spec: Any) -> tuple[Report, onnx.ModelProto]:
    job_id = plane.submit(**inputs, measuring=QUICK, **spec)
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    model = b"".join(plane.blobs.stream(plane.artifacts(job_id)["pruned.onnx"].blob_key))
    return Report.model_validate(plane.report(job_id)), onnx.load_model_from_string(model)


def _weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def test_grouped_layout_is_trained_exported_and_proved(plane: Plane) -> None:
    report, model = _run(
        plane,
        plane.ready_inputs(),
        budget={"macs_ratio": 0.7},
        kernels={"layout": "grouped", "sparsity": 0.5},
        finetuning={"epochs": 1, "batch_size": 32},
    )
    conv = next(node for node in model.graph.node if node.name == "conv1")
    assert {a.name: onnx.helper.get_attribute_value(a) for a in conv.attribute}["group"] == 4
    assert report.kernels is not None
    row = next(row for row in report.kernels.rows if row.name == "conv1")
    assert row.kernels_kept * 2 == row.kernels
    assert _weight(model, "conv1.weight").size == row.weights_kept
    layer = next(layer for layer in report.layers if layer.name == "conv1")
    assert layer.params_pruned == row.weights_kept  # it has no bias
    assert report.pruned.macs < 0.5 * report.original.macs
    assert report.proof.passed
    assert report.training is not None
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert session.run(None, {"image": np.zeros((5, 3, 12, 12), np.float32)})[0].shape == (5, 4)


def test_masked_weights_are_exactly_zero_after_training(plane: Plane) -> None:
    report, model = _run(
        plane,
        plane.ready_inputs(),
        budget={"macs_ratio": 1.0},
        kernels={"layout": "free", "sparsity": 0.75},
        finetuning={"epochs": 1, "batch_size": 32, "learning_rate": 0.05},
    )
    kernels = np.abs(_weight(model, "conv1.weight")).sum(axis=(2, 3))
    assert np.count_nonzero(kernels) == 32 * 32 // 4
    assert report.kernels is not None
    assert report.kernels.conv_weights_kept == 32 * 32 // 4 * 9 + 32 * 3 * 9
    assert [row.reason for row in report.kernels.rows if row.name == "conv0"] == [
        "has 3 input and 32 output channels; 8 of each are needed"
    ]
    assert report.pruned.macs == report.original.macs
    assert "The grouped layout gains time" in report.kernels.note


@pytest.mark.parametrize(
    ("layout", "sparsity", "said"),
    [
        ("strided", 0.99, "Nothing went where kernels.sparsity asks for 99.0%"),
        ("grouped", 0.999, "87.5% of the weights went where kernels.sparsity asks for 99.9%"),
    ],
)
def test_a_sparsity_that_the_layers_are_too_small_for(plane: Plane, layout: str, sparsity: float, said: str) -> None:
    report, _ = _run(
        plane,
        {"model_id": plane.ready_inputs()["model_id"]},
        budget={"macs_ratio": 1.0},
        kernels={"layout": layout, "sparsity": sparsity},
    )
    assert any(warning.startswith(said) for warning in report.warnings)


def test_random_masks_of_channels_then_of_kernels(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    report, model = _run(
        plane,
        inputs,
        budget={"macs_ratio": 0.5},
        kernels={"layout": "free", "sparsity": 0.5},
        random_masks={"granularity": "both", "count": 5},
        finetuning={"epochs": 1, "batch_size": 32},
    )
    assert [search.granularity for search in report.random_masks] == ["feature_map", "kernel"]
    for search in report.random_masks:
        assert len(search.errors) == 5
        assert search.errors[search.best] == min(search.errors)
    kernels = np.abs(_weight(model, "conv1.weight")).sum(axis=(2, 3))
    assert np.count_nonzero(kernels) * 2 == kernels.size < 32 * 32
    assert report.pruned.macs <= 0.5 * report.original.macs
    assert report.training is not None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"random_masks": {}, "dataset_id": None}, "the job needs a dataset_id"),
        ({"random_masks": {"granularity": "kernel"}}, "set kernels.layout to free"),
        ({"random_masks": {"granularity": "both"}, "kernels": {"layout": "grouped"}}, "set kernels.layout to free"),
        ({"random_masks": {}, "budget": {"macs_ratio": 1.0}}, "set budget.macs_ratio below 1"),
        ({"random_masks": {}, "budget": {"params_ratio": 1, "latency_ratio": 1}}, "set budget.macs_ratio below 1"),
    ],
)
def test_random_masks_that_cannot_be_drawn_are_refused_at_submission(spec: dict[str, Any], said: str) -> None:
    body = {"model_id": f"mdl_{0:032x}", "dataset_id": f"dst_{0:032x}", "budget": {"macs_ratio": 0.5}, **spec}
    with pytest.raises(ValidationError, match=said):
        JobSpec.model_validate(body)


@pytest.mark.parametrize(
    ("kernels", "said"),
    [
        ({"layout": "n_m", "sparsity": 0.6}, "one of 0.25, 0.5, 0.75"),
        ({"layout": "strided", "sparsity": 0.4}, "strided keeps one weight in"),
        ({"layout": "diagonal"}, "grouped"),
        ({"sparsity": 1.0}, "less than 1"),
    ],
)
def test_what_fits_no_layout_is_refused_at_submission(kernels: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        JobSpec.model_validate({"model_id": f"mdl_{0:032x}", "budget": {"macs_ratio": 1}, "kernels": kernels})
