"""/v1/datasets from upload to deletion, on both databases."""

import hashlib
import io
import zipfile

import pytest

from models_store.datasets import DatasetRepository
from tests.api.answers import problem
from tests.api.running_api import Service
from tests.api.store_side import BAD_MODEL, DATASET_INSPECTION


@pytest.fixture
def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("cats/1.png", b"x")
    return buffer.getvalue()


def test_an_upload_is_kept_byte_for_byte_and_inspected(service: Service, archive: bytes) -> None:
    response = service.http.post("/v1/datasets", files={"file": ("images.zip", archive)})
    assert response.status_code == 201, response.text
    dataset = response.json()
    assert response.headers["Location"] == f"/v1/datasets/{dataset['id']}"
    assert (dataset["name"], dataset["format"], dataset["state"]) == ("images.zip", "image_folder", "inspecting")
    assert dataset["sha256"] == hashlib.sha256(archive).hexdigest()
    with service.database.session(read_only=True) as session:
        row = DatasetRepository(session).get(dataset["id"])
    assert b"".join(service.blobs.stream(row.blob_key)) == archive
    assert service.incoming() == []
    service.worker.inspect()
    ready = service.http.get(response.headers["Location"]).json()
    assert ready["state"] == "ready"
    assert ready["inspection"] == DATASET_INSPECTION.model_dump(mode="json")


def test_a_rejected_dataset_says_why(service: Service, archive: bytes) -> None:
    path = service.http.put("/v1/datasets/images.zip", content=archive).headers["Location"]
    service.worker.inspect(reject=True)
    assert service.http.get(path).json()["rejection"]["message"] == BAD_MODEL.message
    body = {"model_id": service.ready_model(), "dataset_id": path.split("/")[-1], "budget": {"macs_ratio": 0.5}}
    assert BAD_MODEL.message in problem(service.http.post("/v1/jobs", json=body), 409, "dataset_rejected")["detail"]


def test_datasets_are_listed_and_deleted(service: Service, archive: bytes) -> None:
    paths = [service.http.put(f"/v1/datasets/{name}", content=archive).headers["Location"] for name in "abc"]
    first = service.http.get("/v1/datasets", params={"limit": 2}).json()
    second = service.http.get("/v1/datasets", params={"limit": 2, "after": first["next"]}).json()
    assert [dataset["name"] for dataset in first["items"] + second["items"]] == ["c", "b", "a"]
    problem(service.http.delete(paths[0]), 409, "dataset_in_use")
    service.worker.inspect()
    assert service.http.delete(paths[0]).status_code == 204
    problem(service.http.get(paths[0]), 404, "dataset_not_found")
    assert [d["name"] for d in service.http.get("/v1/datasets").json()["items"]] == ["c", "b"]


@pytest.mark.parametrize("path", ["dst_" + "0" * 32, "images.zip", "%00"])
def test_unknown_datasets_are_404(service: Service, path: str) -> None:
    problem(service.http.get(f"/v1/datasets/{path}"), 404, "dataset_not_found")
    problem(service.http.delete(f"/v1/datasets/{path}"), 404, "dataset_not_found")
