"""Rates of a key, quotas of a project, and what is said where they are reached."""

import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from app.access.refusals import sender
from app.rate_limits import RateLimited, RateLimiter
from app.settings import ApiSettings
from models_store.database_time import database_now
from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT
from models_store.quotas import Limits
from models_store.tables import Job
from tests.api.answers import problem
from tests.api.keyed import key_of, keyed_service, project_of
from tests.api.owned import NPZ
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes
from tests.redis_server import RedisServer

BUDGET = {"macs_ratio": 0.5}
TUS = {"Tus-Resumable": "1.0.0", "Upload-Metadata": "kind bW9kZWw=,filename bmV0Lm9ubng="}


def test_a_key_that_asks_too_often_waits(sqlite_url: str, serve: Serve) -> None:
    with keyed_service(serve, sqlite_url, rate_limit_per_minute=20) as keyed, keyed.as_project() as service:
        answers = [service.http.get("/v1/jobs") for _ in range(22)]
        assert [answer.status_code for answer in answers[:20]] == [200] * 20
        for answer in answers[20:]:
            problem(answer, 429, "rate_limited")
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
        with keyed.as_project() as other:
            assert other.http.get("/v1/usage").raise_for_status().json()["requests_per_minute"] == 20
        assert service.http.get("/healthz").is_success


def test_an_address_that_guesses_keys_waits_and_those_who_have_one_do_not(sqlite_url: str, serve: Serve) -> None:
    with keyed_service(serve, sqlite_url, refused_keys_per_minute=5) as keyed, keyed.as_project() as service:
        with keyed.with_key("esp_" + "0" * 32 + "_" + "A" * 43) as guesser:
            answers = [guesser.http.get("/v1/jobs") for _ in range(8)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
        problem(answers[-1], 429, "too_many_refused_keys")
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert service.http.get("/v1/jobs").is_success
        refused = service.http.get("/v1/audit", params={"action": "refused_key_invalid"}).json()["items"]
        assert len(refused) == 5


@pytest.mark.parametrize(
    ("address", "counted_for"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
    ],
)
def test_whom_refused_keys_are_counted_for(address: str, counted_for: str) -> None:
    assert sender(address) == counted_for


def count_until_refused(limiter: RateLimiter, sender: str, at_most: int) -> int:
    for passed in range(at_most):
        try:
            limiter.count(sender)
        except RateLimited:
            return passed
    return at_most


def test_replicas_count_together_and_alone_without_redis(redis_url: str, tmp_path: Path) -> None:
    one, other = RateLimiter(10, redis_url), RateLimiter(10, redis_url)
    assert count_until_refused(one, "key_a", 6) == 6
    assert count_until_refused(other, "key_a", 10) == 4
    assert count_until_refused(other, "key_b", 20) == 10
    with RedisServer(tmp_path) as server:
        orphan = RateLimiter(10, server.url)
        orphan.count("key_a")
    began = time.monotonic()
    assert count_until_refused(orphan, "key_a", 20) == 10
    assert time.monotonic() - began < 5


@pytest.fixture
def bounded(database_url: str, serve: Serve) -> Iterator[Service]:
    """Open, with limits set by hand."""
    limits = {"quota_stored_bytes": 1000, "quota_unfinished_jobs": 2, "quota_job_minutes": 10}
    with serve(database_url, **limits) as service:
        yield service


def test_no_more_bytes_than_allowed_are_stored(bounded: Service) -> None:
    size = len(onnx_bytes())
    model_id = bounded.upload_model()
    bounded.worker.inspect()
    assert bounded.http.get("/v1/usage").json()["stored_bytes"] == {"used": size, "limit": 1000}
    answer = bounded.http.put("/v1/models/large", content=onnx_bytes("x" * 1000))
    problem(answer, 403, "quota_stored_bytes")
    announced = {**TUS, "Upload-Length": str(1000 - size + 1)}
    problem(bounded.http.post("/v1/uploads", headers=announced), 403, "quota_stored_bytes")
    whole = onnx_bytes("y" * 300)
    bytes_of_it = {"Upload-Length": str(len(whole)), "Content-Type": "application/offset+octet-stream"}
    sent = bounded.http.post("/v1/uploads", headers=TUS | bytes_of_it, content=whole)
    assert sent.json()["state"] == "done", sent.text
    assert bounded.http.get("/v1/usage").json()["stored_bytes"]["used"] == size + len(whole)
    bounded.http.delete(f"/v1/models/{model_id}").raise_for_status()
    assert bounded.http.get("/v1/usage").json()["stored_bytes"]["used"] == len(whole)


def answer_to_head(service: Service, head: str) -> bytes:
    """What the service says to the head of a request alone, until it has said all."""
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port or 80), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        answer = connection.recv(65536)
        while b"\r\n\r\n" in answer and not answer.endswith(b"}"):
            answer += connection.recv(65536)
        return answer


@pytest.mark.parametrize(
    "request_line",
    [
        "PUT /v1/models/net HTTP/1.1",
        "PUT /v1/datasets/images HTTP/1.1",
        "POST /v1/models HTTP/1.1\nContent-Type: multipart/form-data; boundary=b",
        "POST /v1/uploads HTTP/1.1\nTus-Resumable: 1.0.0\nUpload-Length: 9000000\n"
        "Content-Type: application/offset+octet-stream\nUpload-Metadata: kind bW9kZWw=,filename bmV0Lm9ubng=",
    ],
)
def test_bytes_that_will_be_refused_are_not_asked_for(bounded: Service, request_line: str) -> None:
    head = f"{request_line}\nHost: localhost\nContent-Length: 9000000\nExpect: 100-continue\n\n"
    answer = answer_to_head(bounded, head)
    assert answer.startswith(b"HTTP/1.1 403"), answer
    assert b"quota_stored_bytes" in answer
    assert b"GET /v1/usage" in answer


def test_who_sends_them_nevertheless_hears_the_answer(bounded: Service) -> None:
    content = onnx_bytes("x" * 2**24)
    with httpx.Client(base_url=bounded.url) as client:
        for send in (
            lambda: client.put("/v1/models/net", content=content),
            lambda: client.post("/v1/models", files={"file": ("net.onnx", content)}),
            lambda: client.put("/v1/models/net", content=iter([content[:500], content[500:]])),  # of unknown length
        ):
            problem(send(), 403, "quota_stored_bytes")
            assert client.get("/v1/models").json()["items"] == []  # on the same connection, where it was kept
    assert bounded.incoming() == []


def test_an_upload_that_was_answered_is_answered_so_again_without_room(bounded: Service) -> None:
    content, key = onnx_bytes("x" * 250), {"Idempotency-Key": "once"}
    first = bounded.http.put("/v1/models/net", content=content, headers=key)
    assert first.status_code == 201, first.text
    problem(bounded.http.put("/v1/models/net", content=content), 403, "quota_stored_bytes")
    again = bounded.http.put("/v1/models/net", content=content, headers=key)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])


@pytest.mark.parametrize("path", ["/v1/models/net", "/v1/datasets/images"])
@pytest.mark.parametrize("way", ["whole", "of unknown length", "in a form"])
def test_a_used_key_stores_nothing_more(bounded: Service, path: str, way: str) -> None:
    def send(content: bytes) -> httpx.Response:
        key = {"Idempotency-Key": "once"}
        if way == "in a form":
            collection, _, name = path.rpartition("/")
            return bounded.http.post(collection, files={"file": (name, content)}, headers=key)
        return bounded.http.put(path, content=iter([content]) if way == "of unknown length" else content, headers=key)

    def file(filler: str, size: int) -> bytes:
        return onnx_bytes(filler * size) if "models" in path else NPZ + filler.encode() * size

    first = send(file("x", 100))
    assert first.status_code == 201, first.text
    stored = list(bounded.blobs.old(0))
    for another in (file("y", 100), file("y", 50), file("y", 400), file("y", 2**20)):
        problem(send(another), 422, "idempotency_key_reused")
    assert (list(bounded.blobs.old(0)), bounded.incoming()) == (stored, [])
    again = send(file("x", 100))
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])


def test_no_more_jobs_than_allowed_wait(bounded: Service) -> None:
    body = {"model_id": bounded.ready_model(), "budget": BUDGET}
    statuses: list[int] = []

    def start() -> None:
        statuses.append(bounded.http.post("/v1/jobs", json=body).status_code)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202, 202, 429, 429, 429, 429]
    refused = bounded.http.post("/v1/jobs", json=body)
    problem(refused, 429, "quota_unfinished_jobs")
    assert refused.headers["Retry-After"] == "30"
    bounded.worker.fail(bounded.worker.claim())
    assert bounded.http.post("/v1/jobs", json=body).status_code == 202


def test_no_more_uploads_than_allowed_wait_for_their_inspection(database_url: str, serve: Serve) -> None:
    with serve(database_url, quota_unfinished_inspections=2) as service:
        paths = [f"/v1/models/net{number}" for number in range(3)]
        files = [onnx_bytes("x" * (300 + number)) for number in range(3)]
        for path, file in zip(paths[:2], files[:2], strict=True):
            service.http.put(path, content=file).raise_for_status()
        used = service.http.get("/v1/usage").json()
        assert used["unfinished_inspections"] == {"used": 2, "limit": 2}
        assert used["unfinished_jobs"] == {"used": 0, "limit": None}
        refused = service.http.put(paths[2], content=files[2])
        problem(refused, 429, "quota_unfinished_inspections")
        assert refused.headers["Retry-After"] == "30"
        in_one_piece = {"Upload-Length": str(len(files[2])), "Content-Type": "application/offset+octet-stream"}
        begun = service.http.post("/v1/uploads", headers=TUS | in_one_piece, content=files[2])
        problem(begun, 429, "quota_unfinished_inspections")
        service.worker.inspect()
        assert service.http.put(paths[2], content=files[2]).status_code == 201


def test_job_minutes_are_those_of_all_attempts_in_this_month(bounded: Service) -> None:
    job_id = bounded.start_job()
    bounded.worker.claim()
    with bounded.database.session() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(started_at=database_now(-240), lease_expires_at=database_now(-1))
        )
    bounded.worker.reap()
    with bounded.database.session() as session:
        session.execute(update(Job).values(claimable_at=database_now(-1)))
    claim = bounded.worker.claim()
    with bounded.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(started_at=database_now(-390)))
    minutes = bounded.http.get("/v1/usage").json()["job_minutes"]
    assert minutes["limit"] == 10
    assert 10.5 <= minutes["used"] < 11
    body = {"model_id": bounded.http.get(f"/v1/jobs/{job_id}").json()["model_id"], "budget": BUDGET}
    refused = bounded.http.post("/v1/jobs", json=body)
    problem(refused, 429, "quota_job_minutes")
    ends_at = datetime.fromisoformat(bounded.http.get("/v1/usage").json()["month_ends_at"])
    assert ends_at.day == 1
    wait = timedelta(seconds=int(refused.headers["Retry-After"]))
    assert abs(datetime.now(UTC) + wait - ends_at) < timedelta(minutes=1)
    bounded.worker.fail(claim)
    problem(bounded.http.post("/v1/jobs", json=body), 429, "quota_job_minutes")
    with bounded.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=ends_at - timedelta(days=40)))
    assert bounded.http.post("/v1/jobs", json=body).status_code == 202


def test_a_project_may_have_limits_of_its_own(sqlite_url: str, serve: Serve) -> None:
    with keyed_service(serve, sqlite_url, quota_stored_bytes=1) as keyed:
        project_id = project_of(keyed.service, "large")
        with keyed.as_project(DEFAULT_PROJECT, *Scope) as operator:
            problem(operator.http.put("/v1/models/net", content=onnx_bytes()), 403, "quota_stored_bytes")
            change = {"stored_bytes_limit": 10_000, "unfinished_jobs_limit": 0}
            operator.http.patch(f"/v1/projects/{project_id}", json=change).raise_for_status()
        with keyed.as_project(project_id) as service:
            used = service.http.get("/v1/usage").json()
            assert (used["stored_bytes"]["limit"], used["unfinished_jobs"]["limit"]) == (10_000, 0)
            body = {"model_id": service.ready_model(), "budget": BUDGET}
            problem(service.http.post("/v1/jobs", json=body), 429, "quota_unfinished_jobs")
        with keyed.as_project(DEFAULT_PROJECT, *Scope) as operator:
            operator.http.patch(f"/v1/projects/{project_id}", json={"unfinished_jobs_limit": None}).raise_for_status()
        with keyed.with_key(key_of(keyed.service, project_id)) as service:
            assert service.http.get("/v1/usage").json()["unfinished_jobs"]["limit"] == 100


def test_limits_hold_where_keys_are_asked_for_unless_set() -> None:
    def chosen(**settings: object) -> tuple[Limits, int | None]:
        read = ApiSettings.model_validate(settings)
        return read.limits, read.requests_per_minute

    assert chosen() == (Limits(), None)
    assert chosen(auth="required") == (Limits(100 * 2**30, 100, 20_000, 200), 1200)
    off = {"rate_limit_per_minute": 0, "quota_stored_bytes": 0, "quota_unfinished_jobs": 0, "quota_job_minutes": 0}
    off["quota_unfinished_inspections"] = 0
    assert chosen(auth="required", **off) == (Limits(), None)
    assert chosen(quota_unfinished_jobs=3, rate_limit_per_minute=5) == (Limits(unfinished_jobs=3), 5)
