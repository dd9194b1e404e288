"""The Python client against the real API."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from espalier.client import AsyncClient, Client
from espalier.client.exchange import refusal
from espalier.client.synchronous import client as client_module
from espalier.errors import (
    DigestMismatch,
    JobCancelled,
    JobFailed,
    NoSuchArtifact,
    RequestRefused,
    ServiceUnreachable,
    TookTooLong,
    UploadRejected,
)
from models_store.documents.event import EventType
from models_store.documents.job_spec import Budget, JobSpec
from models_store.documents.webhook import Happening
from tests.api.relay import Relay
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes


@pytest.fixture
def client(sqlite_service: Service) -> Iterator[Client]:
    with Client(sqlite_service.url) as client:
        yield client


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "my net.onnx"
    path.write_bytes(onnx_bytes())
    return path


def job_id_of(client: Client, service: Service) -> str:
    return client.create_job(JobSpec(model_id=service.ready_model(), budget=Budget(macs_ratio=0.5))).id


def test_upload_streams_the_file_with_its_digest_and_tells_how_far_it_is(client, model_file):
    told = []
    upload = client.upload_model(model_file, progress=lambda done, total: told.append((done, total)))
    size = model_file.stat().st_size
    assert told[-1] == (size, size)
    assert (upload.name, upload.state, upload.size_bytes) == ("my net.onnx", "inspecting", size)
    assert upload.sha256 == hashlib.sha256(model_file.read_bytes()).hexdigest()


def test_wait_until_ready(client, sqlite_service, model_file):
    upload = client.upload_model(model_file)
    with pytest.raises(TookTooLong):
        client.wait_until_ready(upload, timeout_s=0.2)
    sqlite_service.worker.inspect()
    assert client.wait_until_ready(upload).state == "ready"


def test_a_rejected_upload_is_an_exception_with_its_reason(client, sqlite_service, model_file):
    upload = client.upload_model(model_file)
    sqlite_service.worker.inspect(reject=True)
    with pytest.raises(UploadRejected, match="unknown") as rejected:
        client.wait_until_ready(upload)
    assert rejected.value.hint


def test_a_folder_of_images_is_sent_as_one_archive(client, tmp_path):
    image = tmp_path / "pets" / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    upload = client.upload_dataset(tmp_path / "pets")
    assert (upload.format, upload.name) == ("image_folder", "pets.tar")


def test_a_refused_request_carries_code_and_hint(client, tmp_path):
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(RequestRefused) as refused:
        client.upload_model(empty)
    assert refused.value.status in range(400, 500)
    assert refused.value.code
    assert refused.value.hint
    with pytest.raises(RequestRefused) as missing:
        client.get_job(f"job_{0:032x}")
    assert (missing.value.status, missing.value.code) == (404, "job_not_found")


def test_events_come_as_they_happen_and_end_with_the_job(client, sqlite_service):
    job_id = job_id_of(client, sqlite_service)
    worker = sqlite_service.worker
    claim = worker.claim()
    seen = []
    for event in client.events(job_id):
        seen.append(event)
        if event.type is EventType.STATE and event.data["state"] == "running":
            worker.log(claim, "one\u2028line", "two")
        if event.data.get("message") == "two":
            worker.succeed(claim)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [event.data["message"] for event in seen if event.type is EventType.LOG] == ["one\u2028line", "two"]
    assert seen[-1].data["state"] == "succeeded"
    assert list(client.events(job_id, after=seen[-1].seq)) == []


def test_events_survive_a_restart_of_the_service(serve: Serve, sqlite_url, monkeypatch):
    monkeypatch.setattr(client_module, "RECONNECT_PAUSE_S", 0.05)
    with serve(sqlite_url) as first:
        relay = Relay(first.url)
        with Client(first.url) as direct:
            job_id = job_id_of(direct, first)
        worker, claim = first.worker, first.worker.claim()
        with Client(relay.url) as client:
            events = client.events(job_id)
            before = [next(events), next(events)]
            relay.cut()
            worker.log(claim, "while nobody listened")
            with serve(sqlite_url) as second:
                relay.target = second.url
                worker.succeed(claim)
                after = list(events)
        relay.close()
    assert [event.seq for event in before + after] == [1, 2, 3, 4]
    assert after[-1].data["state"] == "succeeded"


def test_a_failed_and_a_cancelled_job_are_exceptions(client, sqlite_service):
    failed, cancelled = job_id_of(client, sqlite_service), job_id_of(client, sqlite_service)
    assert client.cancel(cancelled).state == "cancelled"
    sqlite_service.worker.fail(sqlite_service.worker.claim())
    with pytest.raises(JobFailed) as failure:
        client.wait(failed)
    assert (failure.value.code, failure.value.hint) == ("unknown_op", "Export it again.")
    with pytest.raises(JobCancelled):
        client.wait(cancelled)


def test_download_checks_the_digest_and_leaves_no_partial_file(client, sqlite_service, tmp_path):
    job_id = job_id_of(client, sqlite_service)
    worker = sqlite_service.worker
    content = b"\0pruned\xff" * 100_000
    worker.succeed(worker.claim(), files={"pruned.onnx": content})
    target = tmp_path / "out" / "small.onnx"
    target.parent.mkdir()
    told = []
    artifact = client.download(job_id, "pruned.onnx", target, progress=lambda done, total: told.append((done, total)))
    assert target.read_bytes() == content
    assert artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert told[-1] == (len(content), len(content))
    with pytest.raises(NoSuchArtifact, match=r"nothing\.onnx") as missing:
        client.download(job_id, "nothing.onnx", target)
    assert "pruned.onnx" in missing.value.hint

    blob = sqlite_service.blobs.incoming_dir.parent.rglob(artifact.sha256)
    stored = next(blob)
    stored.chmod(0o644)
    stored.write_bytes(content[:-1] + b"!")
    target.unlink()
    with pytest.raises(DigestMismatch):
        client.download(job_id, "pruned.onnx", target)
    assert list(target.parent.iterdir()) == []


def test_nobody_there_is_said_at_once():
    with Client("http://127.0.0.1:1") as client, pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:1") as error:
        client.get_job(f"job_{0:032x}")
    assert "espalier serve" in error.value.hint


def test_the_client_to_be_awaited_uploads_follows_and_fetches(sqlite_service, model_file, tmp_path):
    async def use() -> tuple[list[str], bytes]:
        async with AsyncClient(sqlite_service.url) as client:
            uploaded = await client.upload_model(model_file)
            sqlite_service.worker.inspect()
            ready = await client.wait_until_ready(uploaded)
            job = await client.create_job(JobSpec(model_id=ready.id, budget=Budget(macs_ratio=0.5)))
            sqlite_service.worker.succeed(sqlite_service.worker.claim(), files={"pruned.onnx": b"small"})
            states = [event.data["state"] async for event in client.events(job.id) if event.type is EventType.STATE]
            await client.download(job.id, "pruned.onnx", tmp_path / "pruned.onnx")
            hook = await client.create_webhook("https://example.org/a")
            assert [each.id async for each in client.webhooks()] == [hook.id]
            return states, (tmp_path / "pruned.onnx").read_bytes()

    states, content = asyncio.run(use())
    assert states == ["queued", "running", "succeeded"]
    assert content == b"small"


def test_a_download_that_breaks_off_goes_on(sqlite_service, tmp_path):
    content = os.urandom(9 << 20)
    with Client(sqlite_service.url) as direct:
        job_id = job_id_of(direct, sqlite_service)
    sqlite_service.worker.succeed(sqlite_service.worker.claim(), files={"pruned.onnx": content})
    relay = Relay(sqlite_service.url)
    told = []

    def cut_once(done: int, total: int) -> None:
        told.append(done)
        if len(told) == 3:
            relay.cut()

    with Client(relay.url) as client:
        client.download(job_id, "pruned.onnx", tmp_path / "pruned.onnx", progress=cut_once)
    relay.close()
    assert (tmp_path / "pruned.onnx").read_bytes() == content
    assert told == sorted(told), "no byte came twice"


def test_retry_after_is_honoured_in_seconds_and_as_a_time():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    waits = [refusal(httpx.Response(503, headers={"Retry-After": said})).retry_after_s for said in ("7", soon, "x", "")]
    assert (waits[0], waits[2], waits[3]) == (7.0, 0.0, 0.0)
    assert 1.0 < waits[1] <= 3.0


def test_webhooks_from_the_client(client, sqlite_service):
    first = client.create_webhook("https://example.org/a", description="one")
    second = client.create_webhook("https://example.org/b", [Happening.JOB_FAILED])
    assert first.secret.startswith("whsec_")
    assert [(hook.id, hook.secret) for hook in client.webhooks()] == [(second.id, None), (first.id, None)]
    sent = client.test_webhook(first.id)
    again = client.redeliver(first.id, sent.id)
    assert [(each.id, each.event) for each in client.deliveries(first.id)] == [
        (again.id, Happening.WEBHOOK_TEST),
        (sent.id, Happening.WEBHOOK_TEST),
    ]
    client.delete_webhook(first.id)
    assert [hook.id for hook in client.webhooks()] == [second.id]
