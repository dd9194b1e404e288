"""Idempotency-Key: what is sent twice happens once, whoever sends it and however often."""

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from espalier.client import Client
from models_store.database_time import database_now
from models_store.documents.job_spec import Budget, JobSpec
from models_store.idempotency import IdempotencyRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import IdempotencyKey
from tests.api.answers import problem
from tests.api.relay import Relay
from tests.api.running_api import Service
from tests.api.store_side import onnx_bytes

BUDGET = {"macs_ratio": 0.5}


def jobs(service: Service) -> list[str]:
    return [job["id"] for job in service.http.get("/v1/jobs").json()["items"]]


def create(service: Service, key: str, **body: object) -> httpx.Response:
    return service.http.post("/v1/jobs", json={"budget": BUDGET} | body, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_replay_the_answer(service: Service) -> None:
    model_id = service.ready_model()
    first = create(service, "k", model_id=model_id)
    again = create(service, "k", model_id=model_id, seed=0)  # the default, spelt out
    assert first.status_code == again.status_code == 202
    assert first.content == again.content
    assert first.headers["Location"] == again.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert jobs(service) == [first.json()["id"]]


def test_another_body_or_path_under_the_same_key_is_refused(service: Service) -> None:
    model_id = service.ready_model()
    assert create(service, "k", model_id=model_id).status_code == 202
    problem(create(service, "k", model_id=model_id, seed=1), 422, "idempotency_key_reused")
    upload = service.http.put("/v1/models/net", content=onnx_bytes(), headers={"Idempotency-Key": "k"})
    problem(upload, 422, "idempotency_key_reused")
    assert len(jobs(service)) == 1


def test_many_at_once_create_one_and_the_others_are_told_to_wait(service: Service) -> None:
    model_id = service.ready_model()
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: create(service, "k", model_id=model_id), range(24)))
    assert {response.status_code for response in responses} <= {202, 409}
    for response in responses:
        if response.status_code == 409:
            problem(response, 409, "idempotency_key_in_flight")
            assert int(response.headers["Retry-After"]) >= 1
    assert len({response.json()["id"] for response in responses if response.status_code == 202}) == 1
    assert len(jobs(service)) == 1


def test_a_refusal_is_not_remembered(service: Service) -> None:
    model_id = service.upload_model()
    problem(create(service, "k", model_id=model_id), 409, "model_not_ready")
    service.worker.inspect()
    assert create(service, "k", model_id=model_id).status_code == 202


def test_a_claim_whose_request_died_lapses_and_cannot_answer_any_more(service: Service) -> None:
    model_id = service.ready_model()
    first = create(service, "other", model_id=model_id)
    with service.database.of_project(DEFAULT_PROJECT).session() as session:
        fingerprint = session.get_one(IdempotencyKey, (DEFAULT_PROJECT, "other")).fingerprint
        IdempotencyRepository(session).claim("k", fingerprint)
    problem(create(service, "k", model_id=model_id), 409, "idempotency_key_in_flight")
    with service.database.session() as session:
        session.execute(update(IdempotencyKey).values(locked_until=database_now(-1)))
    second = create(service, "k", model_id=model_id)
    assert second.status_code == 202
    assert jobs(service) == [second.json()["id"], first.json()["id"]]


def test_keys_are_forgotten_after_a_day(service: Service) -> None:
    model_id = service.ready_model()
    create(service, "k", model_id=model_id)
    with service.database.session() as session:
        session.execute(update(IdempotencyKey).values(expires_at=database_now(-1)))
    assert "Idempotency-Replayed" not in create(service, "k", model_id=model_id, seed=7).headers


@pytest.mark.parametrize("way", ["form", "body"])
def test_uploads_take_keys_too(service: Service, way: str) -> None:
    def send(content: bytes) -> httpx.Response:
        headers = {"Idempotency-Key": "k"}
        if way == "body":
            return service.http.put("/v1/models/net", content=content, headers=headers)
        return service.http.post("/v1/models", files={"file": ("net.onnx", content)}, headers=headers)

    first, again = send(onnx_bytes()), send(onnx_bytes())
    assert (first.status_code, first.content) == (again.status_code, again.content) == (201, first.content)
    assert len(service.http.get("/v1/models").json()["items"]) == 1
    problem(send(onnx_bytes("z")), 422, "idempotency_key_reused")


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_a_form_is_told_from_another_by_the_name_that_its_file_gives(sqlite_service: Service, kind: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("cats/1.png", b"x")
    content = onnx_bytes() if kind == "models" else archive.getvalue()

    def send(filename: str, **form: str) -> httpx.Response:
        files = {"file": (filename, content)}
        return sqlite_service.http.post(f"/v1/{kind}", files=files, data=form, headers={"Idempotency-Key": "k"})

    first, again = send("a"), send("b", name="a")
    assert (first.status_code, first.content) == (again.status_code, again.content) == (201, first.content)
    problem(send("b"), 422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "a b", "\x7f", "x" * 256])
def test_a_key_is_visible_ascii(sqlite_service: Service, key: str) -> None:
    problem(create(sqlite_service, key, model_id="mdl_" + "0" * 32), 422, "invalid_request")


def test_the_client_starts_a_job_once_though_its_answer_was_lost(sqlite_service: Service) -> None:
    relay = Relay(sqlite_service.url)
    model_id = sqlite_service.ready_model()
    with Client(relay.url) as client:
        relay.swallow_answers = 2
        job = client.create_job(JobSpec(model_id=model_id, budget=Budget(macs_ratio=0.5)))
    relay.close()
    assert relay.swallow_answers == 0
    assert jobs(sqlite_service) == [job.id]


def test_lists_are_filtered_by_time_name_and_format(service: Service, tmp_path: Path) -> None:
    first, second = service.upload_model("a"), service.upload_model("b")
    between = service.http.get(f"/v1/models/{second}").json()["created_at"]

    def listed(**query: str) -> list[str]:
        return [each["id"] for each in service.http.get("/v1/models", params=query).raise_for_status().json()["items"]]

    assert listed(created_from=between) == [second]
    assert listed(created_before=between) == [first]
    assert listed(created_before="2020-01-01T00:00:00Z") == []
    assert listed(name="a") == [first]
    assert listed(format="torchvision") == []
    kinds = service.http.get("/v1/jobs", params={"kind": "inspect", "created_from": between}).json()["items"]
    assert [job["model_id"] for job in kinds] == [second]
    for wrong in ({"created_from": "yesterday"}, {"created_from": "2020-01-01T00:00:00"}, {"format": "pt"}):
        problem(service.http.get("/v1/models", params=wrong), 422, "invalid_request")
