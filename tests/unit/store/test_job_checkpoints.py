"""Checkpoints of jobs: one at a time, replaced by the attempt in progress only."""

import pytest

from models_store.checkpoints import CheckpointRepository
from models_store.database import Database
from models_store.documents.job_spec import JobKind
from models_store.errors import LeaseLost
from models_store.jobs import Claim, JobRepository

FIRST = {"state/estimate.json": "checkpoints/job_1/sha256/00/" + "0" * 64}
SECOND = {"state/estimate.json": "checkpoints/job_1/sha256/11/" + "1" * 64, "state/cut.onnx": "another"}


def keep(database: Database, claim: Claim, files: dict[str, str]) -> None:
    with database.session() as session:
        JobRepository(session).hold(claim)
        CheckpointRepository(session).keep(claim.job_id, claim.attempt, files)


def kept(database: Database, job_id: str) -> dict[str, str]:
    with database.session(read_only=True) as session:
        return CheckpointRepository(session).files(job_id)


def test_each_replaces_the_one_before(database: Database, jobs) -> None:
    job_id = jobs.create(JobKind.PRUNE, {}).id
    claim = jobs.claim("worker")
    assert kept(database, job_id) == {}
    keep(database, claim, FIRST)
    keep(database, claim, SECOND)
    assert kept(database, job_id) == SECOND
    with database.session() as session:
        CheckpointRepository(session).forget(job_id)
    assert kept(database, job_id) == {}


def test_lost_attempt_keeps_nothing(database: Database, jobs) -> None:
    job_id = jobs.create(JobKind.PRUNE, {}).id
    stale = jobs.claim("worker", -1.0)
    keep(database, stale, FIRST)
    jobs.reap_expired()
    with pytest.raises(LeaseLost):
        keep(database, stale, SECOND)
    current = jobs.claim("another")
    assert kept(database, job_id) == FIRST
    keep(database, current, SECOND)
    with pytest.raises(LeaseLost):
        keep(database, stale, FIRST)
    assert kept(database, job_id) == SECOND
