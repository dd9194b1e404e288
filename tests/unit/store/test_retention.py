"""What is forgotten after a while, and blobs that nothing needs any more."""

import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import InstrumentedAttribute

from models_store import retention
from models_store.blobs import Blob, BlobStore
from models_store.database import Database
from models_store.documents.event import EventType
from models_store.documents.job_spec import JobKind
from models_store.documents.webhook import DeliveryState, Happening
from models_store.jobs import JobRepository, NewArtifact
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.quotas import QuotaRepository
from models_store.retention import BLOB_COLUMNS, Policy
from models_store.tables import Base, IdempotencyKey, Job, JobArtifact, JobEvent, UploadPiece, WebhookDelivery
from models_store.webhooks import WebhookRepository
from tests.unit.store.s3_server import S3Server, running
from worker.garbage import Collected, collect

HOUR_S = 3600.0


def ended_job(database: Database, blob: Blob | None = None) -> str:
    """The id of a job with a few events, and a file."""
    with database.of_project(DEFAULT_PROJECT).session() as session:
        job_id = JobRepository(session).create(JobKind.PRUNE, {}).id
    with database.session() as session:
        jobs = JobRepository(session)
        claim = jobs.claim("worker")
        assert claim is not None
        jobs.append_events(claim, [(EventType.LOG, {"level": "info", "message": "at work"})])
        key = blob.key if blob else "sha256/00/" + "0" * 64
        jobs.succeed(claim, {}, [NewArtifact("pruned.onnx", "application/octet-stream", 1, "0" * 64, key)])
    return job_id


def age(database: Database, job_id: str, days: float) -> None:
    with database.session() as session:
        job = session.get_one(Job, job_id)
        assert job.finished_at is not None
        job.finished_at -= timedelta(days=days)


def count(database: Database, column: InstrumentedAttribute) -> int:
    with database.session(read_only=True) as session:
        return session.scalar(select(func.count(column))) or 0


def forget(database: Database, **policy: int | None) -> dict[str, int]:
    with database.session() as session:
        return retention.forget(session, Policy(**policy))


def test_nothing_is_forgotten_before_its_time(database: Database) -> None:
    job_id = ended_job(database)
    assert forget(database) == {}
    age(database, job_id, 9)
    assert forget(database, jobs=10, artifacts=10, events=10, deliveries=10, hook_events=10) == {}


def test_files_and_logs_go_and_the_job_says_how_it_ended(database: Database) -> None:
    job_id, young = ended_job(database), ended_job(database)
    age(database, job_id, 11)
    assert forget(database, artifacts=10, events=10) == {"artifacts": 1, "events": 3}
    with database.session(read_only=True) as session:
        (last,) = JobRepository(session).events(job_id)
        assert last.data["state"] == "succeeded"
        assert JobRepository(session).report(job_id) == {}
        assert len(JobRepository(session).events(young)) == 4
        assert len(JobRepository(session).artifacts(young)) == 1
    assert forget(database, artifacts=10, events=10) == {}


def test_whole_jobs_go_with_all_that_is_theirs(database: Database) -> None:
    job_id = ended_job(database)
    age(database, job_id, 11)
    assert forget(database, jobs=10) == {"jobs": 1}
    assert [count(database, column) for column in (Job.id, JobEvent.seq, JobArtifact.name)] == [0, 0, 0]


def test_the_minutes_of_a_job_that_goes_stay_used(database: Database) -> None:
    for _ in range(2):
        ended_job(database)
    with database.session() as session:
        session.execute(update(Job).values(used_s=90.0))
    assert forget(database, jobs=0) == {"jobs": 2}
    with database.of_project(DEFAULT_PROJECT).session(read_only=True) as session:
        assert QuotaRepository(session).usage().job_minutes == 3


def test_a_job_that_has_not_ended_is_kept_however_old(database: Database) -> None:
    with database.of_project(DEFAULT_PROJECT).session() as session:
        job_id = JobRepository(session).create(JobKind.PRUNE, {}).id
        session.execute(update(Job).values(created_at=datetime.fromisoformat("2020-01-01T00:00:00+00:00")))
    assert forget(database, jobs=0, events=0) == {}
    with database.session(read_only=True) as session:
        assert JobRepository(session).get(job_id) is not None


def test_news_that_were_sent_are_forgotten_and_those_that_wait_are_not(database: Database) -> None:
    with database.of_project(DEFAULT_PROJECT).session() as session:
        webhooks = WebhookRepository(session)
        endpoint = webhooks.add("https://example.org/", (), "")
        for _ in range(2):
            webhooks.tell_one(endpoint, Happening.WEBHOOK_TEST, webhooks.now(), {})
        first = session.scalars(select(WebhookDelivery)).first()
        assert first is not None
        first.state = DeliveryState.DELIVERED
        session.execute(
            update(WebhookDelivery).values(created_at=webhooks.now() - timedelta(days=11), due_at=webhooks.now())
        )
    assert forget(database, deliveries=10) == {"deliveries": 1}
    assert count(database, WebhookDelivery.id) == 1


def test_expired_keys_are_forgotten_without_a_policy(database: Database) -> None:
    past = datetime.fromisoformat("2020-01-01T00:00:00+00:00")
    with database.session() as session:
        session.add(
            IdempotencyKey(
                project_id=DEFAULT_PROJECT,
                key="k",
                fingerprint="0" * 64,
                token="t",
                locked_until=past,
                expires_at=past,
            )
        )
    assert forget(database) == {"idempotency_keys": 1}


def test_every_column_that_names_a_shared_blob_is_looked_at() -> None:
    named = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if column.name.endswith(("blob_key", "onnx_key"))
    }
    of_scopes = {f"{UploadPiece.__tablename__}.blob_key"}
    assert {str(column) for column in BLOB_COLUMNS} == {
        f"{mapper.class_.__name__}.{name.split('.')[1]}"
        for mapper in Base.registry.mappers
        for name in named - of_scopes
        if mapper.local_table.name == name.split(".")[0]
    }


# Garbage


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch):
    with running() as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "key")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield server


class Aged:
    """A blob store whose blobs can be made older."""

    def __init__(self, store: BlobStore, server: S3Server | None) -> None:
        self.store = store
        self._server = server

    def put(self, content: bytes) -> Blob:
        path = self.store.incoming_dir / "file"
        path.write_bytes(content)
        return self.store.adopt(path)

    def age(self, key: str, hours: float) -> None:
        for place in (key, f"aside/{key}"):
            if self._server is not None:
                self._server.modified[f"bucket/some/{place}"] -= timedelta(hours=hours)
            elif (path := self.store.incoming_dir.parent / place).exists():
                then = time.time() - hours * HOUR_S
                os.utime(path, (then, then))


@pytest.fixture(params=["folder", "s3"])
def aged(request: pytest.FixtureRequest, tmp_path: Path) -> Aged:
    if request.param == "folder":
        return Aged(BlobStore(str(tmp_path / "blobs")), None)
    server = request.getfixturevalue("s3")  # which tells the store where it is
    return Aged(BlobStore("s3://bucket/some", tmp_path / "incoming"), server)


def model_on(database: Database, blob: Blob) -> str:
    with database.of_project(DEFAULT_PROJECT).session() as session:
        return ModelRepository(session).add("net", "onnx", blob.sha256, blob.size_bytes, blob.key).id


@pytest.fixture
def sqlite_database(sqlite_url: str):
    database = Database(sqlite_url)
    yield database
    database.dispose()


def test_a_blob_that_nothing_names_goes_in_two_steps(sqlite_database: Database, aged: Aged) -> None:
    young, named, garbage = aged.put(b"young"), aged.put(b"named"), aged.put(b"garbage")
    model_on(sqlite_database, named)
    for blob in (named, garbage):
        aged.age(blob.key, 25)
    assert collect(sqlite_database, aged.store, 24 * HOUR_S) == Collected(set_aside=(garbage.key,))
    assert collect(sqlite_database, aged.store, 24 * HOUR_S) == Collected()
    assert [aged.store.exists(blob.key) for blob in (young, named, garbage)] == [True, True, False]
    aged.age(garbage.key, 25)
    assert collect(sqlite_database, aged.store, 24 * HOUR_S) == Collected(deleted=(garbage.key,))
    assert list(aged.store.aside()) == []


def test_an_upload_that_adopts_an_old_blob_keeps_it(sqlite_database: Database, aged: Aged) -> None:
    blob = aged.put(b"shared")
    aged.age(blob.key, 25)
    assert aged.put(b"shared") == blob  # the row is not there yet
    assert collect(sqlite_database, aged.store, 24 * HOUR_S) == Collected()
    assert b"".join(aged.store.stream(blob.key)) == b"shared"


def test_a_blob_that_was_adopted_in_the_same_instant_comes_back(sqlite_database: Database, aged: Aged) -> None:
    blob = aged.put(b"shared")
    aged.age(blob.key, 25)
    collect(sqlite_database, aged.store, 24 * HOUR_S)
    model_on(sqlite_database, blob)  # whose upload had found the blob right before
    assert collect(sqlite_database, aged.store, 24 * HOUR_S) == Collected(put_back=(blob.key,))
    assert b"".join(aged.store.stream(blob.key)) == b"shared"


def test_the_same_bytes_may_be_stored_anew_meanwhile(sqlite_database: Database, aged: Aged) -> None:
    blob = aged.put(b"shared")
    aged.age(blob.key, 25)
    collect(sqlite_database, aged.store, 24 * HOUR_S)
    model_on(sqlite_database, aged.put(b"shared"))
    collect(sqlite_database, aged.store, 24 * HOUR_S)
    assert list(aged.store.aside()) == []
    assert b"".join(aged.store.stream(blob.key)) == b"shared"
