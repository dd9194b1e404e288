"""Killed in every gap between two commits, each by its name; another worker ends the job as if nothing had been."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import update

from models_store.database_time import database_now
from models_store.documents.job import JobState
from models_store.jobs import HELD, JobRepository
from models_store.tables import Job
from tests.worker.faults.accounting import wrong_with
from tests.worker.networks import convnet
from tests.worker.plane import ROOT, Plane

QUICK = {"rounds": 200}  # long enough for a heartbeat
PRUNE = ("_claim", "_flush", "_keep", "_look", "_write for _succeed")
INSPECT = ("_write for _conclude_inspection",)
REJECT = ("_write for _reject",)
SIDES = ("before", "after")


def worker(plane: Plane, failpoint: str = "") -> subprocess.CompletedProcess[str]:
    """A worker's life: until no job is left, or until it reaches the failpoint."""
    environment = plane.environment(heartbeat_s=0.2, poll_s=0.1)
    return subprocess.run(
        [sys.executable, "-m", "tests.worker.faults.dying_worker", *failpoint.split(" ")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def lease_expires(plane: Plane) -> None:
    """As if the lease had run out, and the sweeper had come."""
    with plane.database.session() as session:
        session.execute(update(Job).where(Job.state.in_(HELD)).values(lease_expires_at=database_now(-1)))
    with plane.database.session() as session:
        JobRepository(session).reap_expired()


def submit(plane: Plane, committer: str) -> str:
    if committer in INSPECT:
        return plane.upload_model(convnet().SerializeToString())[1]
    if committer in REJECT:
        return plane.upload_model(b"no model")[1]
    return plane.submit(model_id=plane.ready_inputs()["model_id"], measuring=QUICK)


# Just before a commit is, for the database, where the gap after the one before it ends.
@pytest.mark.parametrize("side", [pytest.param("before", marks=pytest.mark.slow), "after"])
@pytest.mark.parametrize("committer", [*PRUNE, *INSPECT, *REJECT])
def test_killed_in_the_gap(plane: Plane, committer: str, side: str) -> None:
    job_id = submit(plane, committer)
    killed = worker(plane, f"{side} {committer}")
    assert killed.returncode == -9, killed.stdout + killed.stderr
    assert killed.stdout.splitlines()[-1] == f"{side} {committer}"
    before = plane.job(job_id)
    lease_expires(plane)
    last = worker(plane)
    assert last.returncode == 0, last.stderr
    job = plane.job(job_id)
    assert job.state is (JobState.FAILED if committer in REJECT else JobState.SUCCEEDED)
    if committer not in REJECT:
        assert wrong_with(plane, job) == []
    if before.state.ended:  # killed after the last commit: nothing is done again
        assert job.attempt == before.attempt == 1
    if job.kind == "inspect":
        assert job.model_id is not None
        assert plane.model(job.model_id).state == ("rejected" if committer in REJECT else "ready")


def test_there_are_no_other_gaps(plane: Plane) -> None:
    """A new commit in the worker's code shows up here, and belongs in the lists above."""
    for committer in (PRUNE[0], INSPECT[0], REJECT[0]):
        submit(plane, committer)
    passed = worker(plane)
    assert passed.returncode == 0, passed.stderr
    expected = {f"{side} {committer}" for side in SIDES for committer in (*PRUNE, *INSPECT, *REJECT)}
    assert set(passed.stdout.splitlines()) == expected
