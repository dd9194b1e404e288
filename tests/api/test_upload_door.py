"""Files that are refused at the door: each by a 4xx that says what the file is and what to send instead."""

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save as save_safetensors

from tests.api.answers import problem
from tests.api.running_api import Service
from tests.api.store_side import onnx_bytes


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def checkpoint(legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(Net().state_dict(), buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def large_checkpoint() -> bytes:
    """So many members that the first of them are not listed within the file's last bytes."""
    buffer = io.BytesIO()
    torch.save({f"tensor.{number}": torch.zeros(1) for number in range(4000)}, buffer)
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Net()), buffer)
    return buffer.getvalue()


def exported_program() -> bytes:
    """Some members that torch.export.save of torch 2.14 writes, in its order."""
    members = ("data/weights/weight_0", "models/model.json", "data/sample_inputs/model.pt", "archive_format")
    return zipped(**{f"archive/{member}": b"" for member in members})


def weights() -> bytes:
    return save_safetensors(Net().state_dict())


def weighty_onnx() -> bytes:
    """A model most of which is one tensor."""
    tensor = numpy_helper.from_array(np.zeros(100_000, np.float32), "w")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [100_000])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "graph",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [100_000])],
        [tensor],
    )
    return helper.make_model(graph).SerializeToString()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo("cats/1.png")
        archive.addfile(member, io.BytesIO())
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((4, 8, 8), np.uint8), y=np.arange(4))
    return buffer.getvalue()


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"

REFUSED_AS_ONNX: dict[str, tuple[Callable[[], bytes], str, str, str]] = {
    # what: (content, code, word of the detail, word of the hint)
    "empty": (lambda: b"", "empty_file", "0 bytes", "path"),
    "pickle": (lambda: pickle.dumps({"a": 1}), "unsafe_format", "pickle", "onnx"),
    "text pickle": (lambda: pickle.dumps({"a": 1}, protocol=0), "unsafe_format", "pickle", "onnx"),
    "text pickle of a call": (lambda: pickle.dumps(Path("/x"), protocol=0), "unsafe_format", "pickle", "onnx"),
    "checkpoint": (checkpoint, "unsafe_format", "checkpoint", "onnx"),
    "large checkpoint": (large_checkpoint, "unsafe_format", "checkpoint", "onnx"),
    "legacy checkpoint": (lambda: checkpoint(legacy=True), "unsafe_format", "pickle", "onnx"),
    "torchscript": (torchscript, "unsafe_format", "TorchScript", "onnx"),
    "pt2": (exported_program, "unsafe_format", ".pt2", "onnx"),
    "text": (lambda: b"hello " * 1000, "wrong_format", "text", "ONNX"),
    "text in Greek": (lambda: "μοντέλο ".encode() * 1000, "wrong_format", "text", "ONNX"),
    "Git LFS pointer": (lambda: LFS_POINTER, "wrong_format", "git lfs pull", ""),
    "web page": (lambda: b"\n<!DOCTYPE html><html></html>", "wrong_format", "web page", ""),
    "zip": (lambda: zipped(a=b"b"), "wrong_format", "zip", ""),
    "gzip of a model": (lambda: gzip.compress(onnx_bytes()), "wrong_format", "gzip", ""),
    "png": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "wrong_format", "PNG", ""),
    "safetensors": (weights, "wrong_format", "safetensors", "format=torchvision"),
    "zeros": (lambda: bytes(1000), "wrong_format", "ONNX", ""),
    "noise": (lambda: np.random.default_rng(0).bytes(1000), "wrong_format", "ONNX", ""),
    "one byte": (lambda: b"\x08", "wrong_format", "ONNX", ""),
    "a message without a graph": (lambda: b"\x08\x0a\x12\x01x", "wrong_format", "graph", ""),
    "half a model": (lambda: weighty_onnx()[:200_000], "truncated_file", "too early", "again"),
    "a model without its last byte": (lambda: weighty_onnx()[:-1], "truncated_file", "1 bytes too early", "again"),
    "a number without an end": (lambda: b"\x08" + b"\xff" * 100, "wrong_format", "no number ends", ""),
    "a length beyond all measure": (lambda: b"\x08\x0a\x3a" + b"\xff" * 9 + b"\x01", "truncated_file", "early", ""),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # people have such files nevertheless
@pytest.mark.parametrize("what", REFUSED_AS_ONNX)
def test_what_is_no_onnx_model_is_refused_with_what_to_send(sqlite_service: Service, what: str) -> None:
    make, code, detail, hint = REFUSED_AS_ONNX[what]
    response = sqlite_service.http.put("/v1/models/model.onnx", content=make())
    body = problem(response, 422, code)
    assert detail in body["detail"]
    assert hint in body["hint"]
    assert sqlite_service.http.get("/v1/models").json()["items"] == []
    assert sqlite_service.incoming() == []


REFUSED_AS_WEIGHTS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty": (lambda: b"", "empty_file", "0 bytes"),
    "checkpoint": (checkpoint, "unsafe_format", "checkpoint"),
    "legacy checkpoint": (lambda: checkpoint(legacy=True), "unsafe_format", "pickle"),
    "onnx": (onnx_bytes, "wrong_format", "safetensors"),
    "text": (lambda: b"hello", "wrong_format", "text"),
    "cut in the header": (lambda: weights()[:40], "truncated_file", "table of contents"),
}


@pytest.mark.parametrize("what", REFUSED_AS_WEIGHTS)
def test_what_is_no_safetensors_file_is_refused_with_what_to_send(sqlite_service: Service, what: str) -> None:
    make, code, detail = REFUSED_AS_WEIGHTS[what]
    form = {"format": "torchvision", "architecture": "resnet18"}
    response = sqlite_service.http.post("/v1/models", files={"file": ("weights.pth", make())}, data=form)
    body = problem(response, 422, code)
    assert detail in body["detail"]
    if code != "truncated_file":
        assert "safetensors" in body["hint"] or code == "empty_file"


@pytest.mark.parametrize("make", [onnx_bytes, weighty_onnx])
def test_models_pass(sqlite_service: Service, make: Callable[[], bytes]) -> None:
    response = sqlite_service.http.put("/v1/models/model.onnx", content=make())
    assert response.status_code == 201, response.text


BUNDLES = {
    "whole": (0, 201, ""),
    "cut short": (-22, 422, "truncated_file"),
}


@pytest.mark.parametrize(("end", "status", "code"), BUNDLES.values(), ids=BUNDLES)
def test_zips_of_models_need_their_end(sqlite_service: Service, end: int, status: int, code: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model.onnx", onnx_bytes())
    content = packed.getvalue()[: end or None]
    response = sqlite_service.http.put("/v1/models/net", params={"format": "onnx_zip"}, content=content)
    assert response.status_code == status, response.text
    assert response.json().get("code", "") == code


def test_a_zip_of_a_model_is_no_checkpoint_and_no_onnx_file(sqlite_service: Service) -> None:
    form = {"format": "onnx_zip"}
    response = sqlite_service.http.put("/v1/models/net", params=form, content=checkpoint())
    problem(response, 422, "unsafe_format")
    problem(sqlite_service.http.put("/v1/models/net", params=form, content=onnx_bytes()), 422, "wrong_format")


def test_safetensors_pass(sqlite_service: Service) -> None:
    form = {"format": "torchvision", "architecture": "resnet18"}
    response = sqlite_service.http.put("/v1/models/weights", params=form, content=weights())
    assert response.status_code == 201, response.text


@pytest.mark.shared
def test_public_models_pass(sqlite_service: Service, shared: Path) -> None:
    for path in sorted((shared / "models").glob("*.onnx")):
        response = sqlite_service.http.put(f"/v1/models/{path.name}", content=path.read_bytes())
        assert response.status_code == 201, f"{path.name}: {response.text}"


ACCEPTED_AS_DATASET: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip": (lambda: zipped(**{"cats/1.png": b"x"}), "image_folder"),
    "tar": (lambda: tarred("w"), "image_folder"),
    "tar.gz": (lambda: tarred("w:gz"), "image_folder"),
    "tar.xz": (lambda: tarred("w:xz"), "image_folder"),
    "npz": (npz, "npz"),
}


@pytest.mark.parametrize("what", ACCEPTED_AS_DATASET)
def test_the_format_of_a_dataset_is_seen_from_the_file(sqlite_service: Service, what: str) -> None:
    make, format = ACCEPTED_AS_DATASET[what]
    other = {"npz": "cifar_python", "image_folder": "npz"}[format]
    response = sqlite_service.http.post("/v1/datasets", files={"file": ("data", make())})
    assert response.status_code == 201, response.text
    assert response.json()["format"] == format
    named = sqlite_service.http.put("/v1/datasets/data", params={"format": format}, content=make())
    assert named.status_code == 201, named.text
    mismatch = sqlite_service.http.put("/v1/datasets/data", params={"format": other}, content=make())
    assert format in problem(mismatch, 422, "wrong_format")["detail"]


@pytest.mark.parametrize("named", ["image_folder", "cifar_python", "cifar_binary"])
def test_an_archive_is_taken_for_what_it_is_called(sqlite_service: Service, named: str) -> None:
    response = sqlite_service.http.put("/v1/datasets/data", params={"format": named}, content=tarred("w:gz"))
    assert response.status_code == 201, response.text
    assert response.json()["format"] == named


REFUSED_AS_DATASET: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty": (lambda: b"", "empty_file", "0 bytes"),
    "pickle": (lambda: pickle.dumps([1, 2]), "unsafe_format", "pickle"),
    "checkpoint": (checkpoint, "unsafe_format", "checkpoint"),
    "cut zip": (lambda: zipped(**{"cats/1.png": bytes(1000)})[:-200], "truncated_file", "no end"),
    "zip of nothing": (zipped, "wrong_format", "empty zip"),
    "single array": (lambda: b"\x93NUMPY\x01\x00" + bytes(100), "wrong_format", "numpy array"),
    "image": (lambda: b"\xff\xd8\xff" + bytes(100), "wrong_format", "JPEG"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(100), "wrong_format", "7z"),
    "csv": (lambda: b"image,label\n1.png,cat\n", "wrong_format", "text"),
}


@pytest.mark.parametrize("what", REFUSED_AS_DATASET)
def test_what_is_no_dataset_is_refused_with_what_to_send(sqlite_service: Service, what: str) -> None:
    make, code, detail = REFUSED_AS_DATASET[what]
    response = sqlite_service.http.post("/v1/datasets", files={"file": ("data.zip", make())})
    body = problem(response, 422, code)
    assert detail in body["detail"]
    assert body["hint"]
    assert sqlite_service.incoming() == []
