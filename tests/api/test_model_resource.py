"""/v1/models from upload to deletion, on both databases."""

import base64
import hashlib

import pytest

from models_store.documents.job_spec import JobKind
from models_store.jobs import JobRepository
from models_store.models import ModelRepository
from tests.api.answers import problem
from tests.api.running_api import Service
from tests.api.store_side import BAD_MODEL, LAYER, onnx_bytes

UNKNOWN = "mdl_" + "0" * 32


def test_an_upload_is_kept_byte_for_byte_and_queued_for_inspection(service: Service) -> None:
    content = onnx_bytes()
    response = service.http.post("/v1/models", files={"file": ("my net.onnx", content)})
    assert response.status_code == 201, response.text
    model = response.json()
    assert response.headers["Location"] == f"/v1/models/{model['id']}"
    assert model["name"] == "my net.onnx"
    assert (model["format"], model["state"]) == ("onnx", "inspecting")
    assert model["sha256"] == hashlib.sha256(content).hexdigest()
    assert model["size_bytes"] == len(content)
    assert service.http.get(response.headers["Location"]).json() == model
    assert service.incoming() == []

    with service.database.session(read_only=True) as session:
        row = ModelRepository(session).get(model["id"])
        (job,) = JobRepository(session).list(kind=JobKind.INSPECT)
    assert b"".join(service.blobs.stream(row.blob_key)) == content
    assert (job.model_id, job.state) == (model["id"], "queued")


def test_a_bare_body_is_an_upload_too(service: Service) -> None:
    content = onnx_bytes()
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    response = service.http.put(
        "/v1/models/net.onnx", content=content, headers={"Repr-Digest": f"sha-512=:AA==:, sha-256=:{digest}:"}
    )
    assert response.status_code == 201, response.text
    assert response.json()["name"] == "net.onnx"
    assert response.json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_weights_come_with_their_architecture(service: Service) -> None:
    weights = (2).to_bytes(8, "little") + b"{}"
    form = {"format": "torchvision", "architecture": "resnet18", "num_classes": "10", "input_shape": "3,32,32"}
    response = service.http.post("/v1/models", files={"file": ("w.safetensors", weights)}, data=form)
    assert response.status_code == 201, response.text
    expected = {"architecture": "resnet18", "num_classes": 10, "input_shape": [3, 32, 32]}
    assert response.json()["details"] == expected
    with service.database.session(read_only=True) as session:
        assert ModelRepository(session).get(response.json()["id"]).details == expected


def test_torchvision_has_its_own_defaults(sqlite_service: Service) -> None:
    weights = (2).to_bytes(8, "little") + b"{}"
    response = sqlite_service.http.put(
        "/v1/models/w", params={"format": "torchvision", "architecture": "vgg16_bn"}, content=weights
    )
    expected = {"architecture": "vgg16_bn", "num_classes": 1000, "input_shape": [3, 224, 224]}
    assert response.json()["details"] == expected


@pytest.mark.parametrize(
    ("form", "word"),
    [
        ({"format": "torchvision"}, "architecture"),
        ({"format": "pickle"}, "format"),
        ({"architecture": "resnet18"}, "only for format torchvision"),
        ({"format": "torchvision", "architecture": "resnet18", "num_classes": "0"}, "num_classes"),
        ({"format": "torchvision", "architecture": "resnet18", "input_shape": "224x224"}, "input_shape"),
        ({"format": "torchvision", "architecture": "../resnet18"}, "architecture"),
        ({"arch": "resnet18"}, "arch"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a" * 201}, "name"),
        ({"sha256": "abc"}, "sha256"),
    ],
)
def test_fields_that_make_no_sense_are_named(sqlite_service: Service, form: dict[str, str], word: str) -> None:
    response = sqlite_service.http.post("/v1/models", files={"file": ("net.onnx", onnx_bytes())}, data=form)
    body = problem(response, 422, "invalid_request")
    assert any(word in fault["location"] + fault["message"] for fault in body["errors"])
    assert sqlite_service.http.get("/v1/models").json()["items"] == []
    assert sqlite_service.incoming() == []


def test_empty_boxes_of_a_form_count_as_left_out(sqlite_service: Service) -> None:
    form = {"architecture": "", "num_classes": "", "input_shape": "", "sha256": "", "name": ""}
    response = sqlite_service.http.post("/v1/models", files={"file": ("net.onnx", onnx_bytes())}, data=form)
    assert response.status_code == 201, response.text
    assert response.json()["name"] == "net.onnx"


@pytest.mark.parametrize("filename", ["../../etc/passwd", "C:\\models\\net.onnx", "né t.onnx", 'a";b.onnx'])
def test_a_filename_is_only_a_name(sqlite_service: Service, filename: str) -> None:
    response = sqlite_service.http.post("/v1/models", files={"file": (filename, onnx_bytes())})
    assert response.status_code == 201, response.text
    name = response.json()["name"]
    assert name
    assert not set(name) & set("/\\")


def test_lists_are_paged_by_a_cursor_that_new_rows_do_not_shift(service: Service) -> None:
    ids = [service.upload_model(f"net-{number}") for number in range(5)]
    first = service.http.get("/v1/models", params={"limit": 2}).json()
    ids.append(service.upload_model("a late one"))
    second = service.http.get("/v1/models", params={"limit": 2, "after": first["next"]}).json()
    third = service.http.get("/v1/models", params={"limit": 2, "after": second["next"]}).json()
    seen = [model["id"] for page in (first, second, third) for model in page["items"]]
    assert seen == ids[4::-1]
    assert third["next"] is None


def test_lists_filter_by_state(service: Service) -> None:
    ready = service.ready_model()
    waiting = service.upload_model()
    listed = {
        state: [model["id"] for model in service.http.get("/v1/models", params={"state": state}).json()["items"]]
        for state in ("inspecting", "ready", "rejected")
    }
    assert listed == {"inspecting": [waiting], "ready": [ready], "rejected": []}
    problem(service.http.get("/v1/models", params={"state": "lost"}), 422, "invalid_request")


@pytest.mark.parametrize("path", [UNKNOWN, "net.onnx", "%00", "job_" + "0" * 32])
def test_unknown_models_are_404(service: Service, path: str) -> None:
    for suffix in ("", "/graph"):
        problem(service.http.get(f"/v1/models/{path}{suffix}"), 404, "model_not_found")
    problem(service.http.delete(f"/v1/models/{path}"), 404, "model_not_found")


def test_the_graph_shows_the_layers_once_inspected(service: Service) -> None:
    model_id = service.upload_model()
    waiting = problem(service.http.get(f"/v1/models/{model_id}/graph"), 409, "model_not_ready")
    assert "ready" in waiting["hint"]
    service.worker.inspect()
    assert service.http.get(f"/v1/models/{model_id}/graph").json() == {
        "model_id": model_id,
        "params": 448,
        "macs": 1000,
        "layers": [LAYER.model_dump(mode="json")],
    }
    model = service.http.get(f"/v1/models/{model_id}").json()
    assert model["state"] == "ready"
    assert model["inspection"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 3, 8, 8]}]
    assert "layers" not in model["inspection"]


def test_a_rejected_model_says_why(service: Service) -> None:
    model_id = service.upload_model()
    service.worker.inspect(reject=True)
    model = service.http.get(f"/v1/models/{model_id}").json()
    assert model["state"] == "rejected"
    assert model["rejection"]["message"] == BAD_MODEL.message
    body = problem(service.http.get(f"/v1/models/{model_id}/graph"), 409, "model_rejected")
    assert BAD_MODEL.message in body["detail"]
    assert body["hint"] == BAD_MODEL.hint


def test_a_model_is_deleted_when_no_job_needs_it(service: Service) -> None:
    job_id = service.start_job()
    model_id = service.http.get(f"/v1/jobs/{job_id}").json()["model_id"]
    body = problem(service.http.delete(f"/v1/models/{model_id}"), 409, "model_in_use")
    assert job_id in body["detail"]
    service.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    assert service.http.delete(f"/v1/models/{model_id}").status_code == 204
    problem(service.http.get(f"/v1/models/{model_id}"), 404, "model_not_found")
    assert service.http.get(f"/v1/jobs/{job_id}").json()["model_id"] is None
