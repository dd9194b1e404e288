"""An upload is inspected in a child process, and becomes ready or rejected."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import numpy_helper
from safetensors.torch import save

from models_store.documents.job import JobState
from tests import cifar_files
from tests.worker.networks import coloured_squares, convnet
from tests.worker.plane import Plane


def test_model_becomes_ready(plane: Plane) -> None:
    model_id, job_id = plane.upload_model(convnet().SerializeToString())
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    model = plane.model(model_id)
    assert model.state == "ready"
    assert model.onnx_key == model.blob_key
    assert model.inspection is not None
    assert [layer["name"] for layer in model.inspection["layers"]] == ["conv0", "conv1", "fc"]
    assert model.inspection["inputs"] == [{"name": "image", "dtype": "float", "shape": ["batch", 3, 12, 12]}]


def test_a_model_is_tried_as_it_is_read(plane: Plane) -> None:
    """ONNX Runtime takes a batch that is declared as 0 by its word."""
    model = convnet()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 0
    model_id, job_id = plane.upload_model(model.SerializeToString())
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    inspection = plane.model(model_id).inspection
    assert inspection is not None
    assert inspection["inputs"] == [{"name": "image", "dtype": "float", "shape": [None, 3, 12, 12]}]


def test_torchvision_weights_become_onnx(plane: Plane) -> None:
    weights = squeezenet_weights(classes=10)
    details = {"architecture": "squeezenet1_1", "num_classes": 10, "input_shape": [3, 64, 64]}
    model_id, job_id = plane.upload_model(save(weights), "torchvision", **details)
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    model = plane.model(model_id)
    assert model.inspection is not None
    assert model.inspection["params"] == sum(weight.numel() for weight in weights.values())
    assert model.onnx_key not in (None, model.blob_key)
    exported = onnx.load_model_from_string(b"".join(plane.blobs.stream(model.onnx_key)))
    assert set(weights) <= {tensor.name for tensor in exported.graph.initializer}


def test_files_beside_a_model_become_one_with_it(plane: Plane, tmp_path: Path) -> None:
    model_id, job_id = plane.upload_model(bundle(tmp_path), "onnx_zip")
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    model = plane.model(model_id)
    assert model.inspection is not None
    assert [layer["name"] for layer in model.inspection["layers"]] == ["conv0", "conv1", "fc"]
    assert model.onnx_key not in (None, model.blob_key)
    joined = onnx.load_model_from_string(b"".join(plane.blobs.stream(model.onnx_key)))
    whole = {tensor.name: numpy_helper.to_array(tensor) for tensor in convnet().graph.initializer}
    for tensor in joined.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), whole.pop(tensor.name))
    assert not whole


def rejected(plane: Plane, content: bytes, kind: str) -> dict[str, Any]:
    """Why an upload was refused."""
    model_id, job_id = plane.upload_model(content, kind)
    plane.work()
    plane.wait(job_id, JobState.FAILED)
    rejection = plane.model(model_id).rejection
    assert rejection is not None
    return rejection


def test_a_bundle_without_its_weights(plane: Plane, tmp_path: Path) -> None:
    rejection = rejected(plane, bundle(tmp_path, leave_out="model.weights"), "onnx_zip")
    assert rejection["code"] == "external_data"
    assert "model.weights" in rejection["message"]


def test_weights_that_do_not_fit(plane: Plane) -> None:
    details = {"architecture": "squeezenet1_1", "num_classes": 11, "input_shape": [3, 64, 64]}
    model_id, job_id = plane.upload_model(save(squeezenet_weights(classes=10)), "torchvision", **details)
    plane.work()
    job = plane.wait(job_id, JobState.FAILED)
    rejection = plane.model(model_id).rejection
    assert rejection is not None
    assert rejection["code"] == job.error["code"] == "weights_do_not_fit"
    assert "classifier.1.weight" in rejection["message"]


def test_dataset_becomes_ready(plane: Plane) -> None:
    dataset_id, job_id = plane.upload_dataset(coloured_squares(samples=40, classes=4), "npz")
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    dataset = plane.dataset(dataset_id)
    assert dataset.inspection is not None
    assert dataset.inspection["samples_per_class"] == [10, 10, 10, 10]


@pytest.mark.parametrize("form", ["cifar_python", "cifar_binary"])
def test_an_archive_is_called_by_what_it_holds(plane: Plane, form: str) -> None:
    dataset_id, job_id = plane.upload_dataset(cifar(form), "image_folder", format_named=False)
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    dataset = plane.dataset(dataset_id)
    assert dataset.inspection is not None
    assert (dataset.format, dataset.inspection["format"]) == (form, form)
    assert dataset.inspection["classes"] == list(cifar_files.NAMES)
    assert (dataset.inspection["samples"], dataset.inspection["test_samples"]) == (48, 16)


def test_an_archive_that_was_called_something_else(plane: Plane) -> None:
    dataset_id, job_id = plane.upload_dataset(cifar("cifar_python"), "cifar_binary", format_named=True)
    plane.work()
    plane.wait(job_id, JobState.FAILED)
    rejection = plane.dataset(dataset_id).rejection
    assert rejection is not None
    assert (rejection["code"], "cifar_python" in rejection["hint"]) == ("wrong_format", True)


def cifar(form: str) -> bytes:
    batches = {"data_batch_1": cifar_files.images_of(32), "test_batch": cifar_files.images_of(16, seed=1)}
    if form == "cifar_binary":
        return cifar_files.packed(cifar_files.binary_files(batches, fine=False))
    return cifar_files.packed(cifar_files.python_files(batches, cifar_files.dumped_by_python_2, fine=False))


def bundle(folder: Path, leave_out: str = "") -> bytes:
    """A zip of a model whose weights lie beside it, both in a folder."""
    onnx.save(convnet(), folder / "model.onnx", save_as_external_data=True, location="model.weights", size_threshold=0)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in {"model.onnx", "model.weights"} - {leave_out}:
            archive.write(folder / name, f"exported/{name}")
    return packed.getvalue()


def test_a_model_that_does_not_load_is_told_without_where_it_lies(plane: Plane) -> None:
    network = convnet()
    network.graph.node[0].op_type = "FormatDisk"
    model_id, job_id = plane.upload_model(network.SerializeToString())
    plane.work()
    job = plane.wait(job_id, JobState.FAILED)
    rejection = plane.model(model_id).rejection
    assert rejection is not None
    assert rejection["code"] == "model_does_not_load"
    assert "FormatDisk" in rejection["message"]
    for text in (rejection["message"], str(job.error)):
        assert "inputs/" not in text
        assert str(plane.folder) not in text


def test_a_model_older_than_the_runtime_is_told_its_age(plane: Plane) -> None:
    network = convnet()
    network.opset_import[0].version = 6
    rejection = rejected(plane, network.SerializeToString(), "onnx")
    assert rejection["code"] == "model_does_not_load"
    assert "opset 6" in rejection["hint"]


def squeezenet_weights(classes: int) -> dict[str, torch.Tensor]:
    return torchvision.models.squeezenet1_1(weights=None, num_classes=classes).state_dict()
