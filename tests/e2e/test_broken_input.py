"""Broken input through the real service: each ends as a 4xx or as `rejected`, says what to do, and all goes on."""

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
import torch
from safetensors.torch import save

from tests.attacks import dataset_files, onnx_files
from tests.e2e.served import Served, descendants, served
from tests.waiting import until
from tests.worker.networks import coloured_squares, convnet


class Broken(NamedTuple):
    """An upload and the code of its refusal, at the door (a 4xx) or by the inspection."""

    kind: str
    file: tuple[str, bytes]
    fields: dict[str, str]
    code: str


def weights(**tensors: torch.Tensor) -> bytes:
    return save(tensors)


def state_dict() -> bytes:
    file = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(4, 4)}, file)
    return file.getvalue()


TORCHVISION = {"format": "torchvision", "num_classes": "10", "input_shape": "3,64,64"}
NO_RESNET = weights(**{"fc.weight": torch.zeros(10, 4)})
CASES = {
    "an empty file": Broken("models", ("empty.onnx", b""), {}, "empty_file"),
    "a truncated ONNX": Broken("models", ("half.onnx", convnet().SerializeToString()[:30_000]), {}, "truncated_file"),
    "a pickle": Broken("models", ("model.onnx", onnx_files.pickled()), {}, "unsafe_format"),
    "a torch.save file": Broken("models", ("model.pt", state_dict()), {}, "unsafe_format"),
    "a text named .onnx": Broken("models", ("text.onnx", onnx_files.text()), {}, "wrong_format"),
    "an unknown architecture": Broken(
        "models", ("net.safetensors", NO_RESNET), {**TORCHVISION, "architecture": "resnet19"}, "unknown_architecture"
    ),
    "weights that do not fit": Broken(
        "models", ("net.safetensors", NO_RESNET), {**TORCHVISION, "architecture": "resnet18"}, "weights_do_not_fit"
    ),
    "an empty dataset": Broken("datasets", ("empty.tar", b""), {"format": "image_folder"}, "empty_file"),
    "a tar with ../ paths": Broken(
        "datasets", ("d.tar", dataset_files.tar_with_parent_paths()), {"format": "image_folder"}, "unsafe_archive"
    ),
    "broken images": Broken(
        "datasets", ("d.tar", dataset_files.broken_images()), {"format": "image_folder"}, "unusable_dataset"
    ),
    "an npz with a pickle": Broken(
        "datasets", ("d.npz", dataset_files.npz_with_a_pickle()), {"format": "npz"}, "unreadable_npz"
    ),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for both tests. No verdict here is a matter of time, however busy the machine is."""
    with served(tmp_path_factory.mktemp("serve") / "data", ESPALIER_INSPECT_DEADLINE_S="1000") as service:
        yield service


def test_every_broken_upload_is_refused_with_a_reason_and_the_service_goes_on(service: Served) -> None:
    before = descendants(service.process.pid)
    with httpx.Client(base_url=service.url, timeout=120) as http:
        inspected: dict[str, tuple[str, str]] = {}
        for name, (kind, file, fields, code) in CASES.items():
            answer = http.post(f"/v1/{kind}", files={"file": file}, data=fields)
            if answer.status_code == 201:
                inspected[name] = (answer.headers["Location"], code)
            else:
                assert 400 <= answer.status_code < 500, (name, answer.text)
                check_reason(name, answer.json(), "detail", code)
        for name, (location, code) in inspected.items():
            row = settled(http, location)
            assert row["state"] == "rejected", (name, row)
            check_reason(name, row["rejection"], "message", code)
            refuse_jobs_on(http, location, row["id"])
        check_that_it_goes_on(http)
    assert before <= descendants(service.process.pid)  # nothing died of it


def test_impossible_budgets_are_refused(service: Served) -> None:
    with httpx.Client(base_url=service.url, timeout=120) as http:
        model_id = upload(http, "models", "good.onnx", convnet().SerializeToString())
        for budget in ({"macs_ratio": 0}, {"macs_ratio": 2.0}, {"macs_ratio": -1}, {"macs_ratio": "half"}, {}):
            answer = http.post("/v1/jobs", json={"model_id": model_id, "budget": budget})
            assert answer.status_code == 422, (budget, answer.text)
            assert "budget" in answer.text


def check_reason(name: str, document: dict[str, Any], text: str, code: str) -> None:
    assert document["code"] == code, (name, document)
    assert document[text], name
    assert document["hint"], name


def refuse_jobs_on(http: httpx.Client, location: str, id: str) -> None:
    if location.startswith("/v1/models"):
        answer = http.post("/v1/jobs", json={"model_id": id, "budget": {"macs_ratio": 0.5}})
        assert 400 <= answer.status_code < 500, answer.text


def check_that_it_goes_on(http: httpx.Client) -> None:
    upload(http, "models", "good.onnx", convnet().SerializeToString())
    upload(http, "datasets", "good.npz", coloured_squares(40), format="npz")
    assert http.get("/readyz").is_success


def upload(http: httpx.Client, kind: str, name: str, content: bytes, **fields: str) -> str:
    """The id of a good upload, once it is ready."""
    answer = http.post(f"/v1/{kind}", files={"file": (name, content)}, data=fields)
    assert answer.status_code == 201, answer.text
    row = settled(http, answer.headers["Location"])
    assert row["state"] == "ready", row
    return row["id"]


def settled(http: httpx.Client, location: str) -> dict[str, Any]:
    until(lambda: http.get(location).json()["state"] != "inspecting", 250, f"the verdict on {location}")
    row: dict[str, Any] = http.get(location).json()
    return row
