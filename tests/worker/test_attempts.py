"""How one attempt can end, and what the row says then."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from models_store.database_time import database_now
from models_store.documents.event import STAGES
from models_store.documents.job import JobState
from models_store.jobs import JobRepository
from models_store.tables import Job
from tests.worker.plane import Plane, find_child
from worker.supervisor import Outcome

ENDLESS = {"epochs": 1000, "batch_size": 32}


def _meanwhile(action: Callable[[], object]) -> threading.Thread:
    """Do something while this thread supervises."""
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def _no_delay(plane: Plane, job_id: str) -> None:
    """As if the time before the next attempt had passed."""
    with plane.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(claimable_at=database_now()))


def _error(plane: Plane, job_id: str) -> dict[str, Any]:
    error = plane.wait(job_id, JobState.FAILED).error
    assert error is not None
    return error


def test_child_that_crashes_is_tried_three_times(plane: Plane) -> None:
    job_id = plane.submit(**plane.ready_inputs(), finetuning=ENDLESS)
    for _ in range(3):
        crash = _meanwhile(lambda: os.kill(plane.child_of(job_id), signal.SIGSEGV))
        assert plane.work() == [Outcome.ENDED]
        crash.join()
        _no_delay(plane, job_id)
    error = _error(plane, job_id)
    assert error["code"] == "worker_lost"
    assert error["error_class"] == "infrastructure"
    assert "SIGSEGV" in error["message"]
    assert plane.states(job_id) == ["queued", "running"] * 3 + ["failed"]
    assert not plane.artifacts(job_id)


def test_a_job_that_was_queued_before_an_upgrade_runs(plane: Plane) -> None:
    """Its stages are those of a release that had no recovery and no training before the cut, and other names."""
    inputs = plane.ready_inputs()
    job_id = plane.submit(model_id=inputs["model_id"], measuring={"rounds": 3})
    rows = [{"name": name, "state": "pending"} for name in ("baseline", "choose", "prune", "tune", "measure", "report")]
    with plane.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(stages=rows))
    assert plane.work() == [Outcome.ENDED]
    job = plane.wait(job_id, JobState.SUCCEEDED)
    assert [stage["name"] for stage in job.stages] == list(STAGES)
    assert {stage["state"] for stage in job.stages} == {"done", "skipped"}
    assert job.progress == 1.0
    assert plane.report(job_id) is not None


def test_a_job_that_this_version_does_not_take_fails_with_the_reason(plane: Plane) -> None:
    """Queued before an upgrade after which it would have been refused."""
    job_id = plane.submit(model_id=plane.ready_inputs()["model_id"])
    with plane.database.session() as session:
        job = session.get_one(Job, job_id)
        job.spec = job.spec | {"pruning": {"criterion": "of another version"}}
    assert plane.work() == [Outcome.ENDED]
    error = _error(plane, job_id)
    assert (error["code"], error["error_class"]) == ("spec_refused", "user")
    assert "there is no criterion 'of another version'" in error["message"]


def test_a_job_that_asks_for_what_has_no_effect_is_carried_out_all_the_same(plane: Plane) -> None:
    """Queued before an upgrade after which it would have been refused for that."""
    job_id = plane.submit(model_id=plane.ready_inputs()["model_id"])
    with plane.database.session() as session:
        job = session.get_one(Job, job_id)
        job.spec = job.spec | {"export": {"float16_io": True}}
    assert plane.work() == [Outcome.ENDED]
    assert plane.job(job_id).state is JobState.SUCCEEDED


def test_out_of_memory(plane: Plane) -> None:
    """A child whose address space ends below what torch needs."""
    job_id = plane.submit(**plane.ready_inputs(), finetuning=ENDLESS)
    for _ in range(3):
        plane.work(job_memory_bytes=2**30)
        _no_delay(plane, job_id)
    error = _error(plane, job_id)
    assert error["code"] == "out_of_memory"
    assert error["error_class"] == "resources"


def test_error_of_the_user_is_not_tried_again(plane: Plane) -> None:
    job_id = plane.submit(model_id=plane.ready_inputs()["model_id"], pruning={"exclude": ["no such layer"]})
    plane.work()
    error = _error(plane, job_id)
    assert error["code"] == "unknown_layer"
    assert error["error_class"] == "user"
    assert error["stage"] == "baseline"
    assert error["hint"]
    assert plane.states(job_id) == ["queued", "running", "failed"]
    stages = {stage["name"]: stage["state"] for stage in plane.job(job_id).stages}
    assert stages["baseline"] == "failed"
    assert stages["estimate"] == "pending"


def test_deadline(plane: Plane) -> None:
    job_id = plane.submit(**plane.ready_inputs(), finetuning=ENDLESS, deadline_s=1)
    plane.work()
    error = _error(plane, job_id)
    assert error["code"] == "deadline_exceeded"
    assert error["error_class"] == "resources"
    assert find_child(job_id) is None


def test_lost_lease_writes_nothing(plane: Plane) -> None:
    """Another worker has taken the job meanwhile."""
    job_id = plane.submit(**plane.ready_inputs(), finetuning=ENDLESS)

    def take_over() -> None:
        plane.child_of(job_id)
        with plane.database.session() as session:
            session.execute(update(Job).where(Job.id == job_id).values(lease_expires_at=database_now(-1)))
        with plane.database.session() as session:
            JobRepository(session).reap_expired()
        assert plane.claim() is not None

    thief = _meanwhile(take_over)
    assert plane.work(heartbeat_s=0.3) == [Outcome.LEASE_LOST]
    thief.join()
    assert plane.states(job_id) == ["queued", "running", "queued", "running"]
    assert plane.events(job_id)[-1].attempt == 2
    assert plane.job(job_id).state is JobState.RUNNING
    assert find_child(job_id) is None


def test_missing_blob_fails_the_attempt(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    plane.blobs.delete(plane.dataset(inputs["dataset_id"]).blob_key)
    job_id = plane.submit(**inputs)
    plane.work()
    job = plane.job(job_id)
    assert job.state is JobState.QUEUED
    assert job.failed_attempts == 1
    assert plane.events(job_id)[-1].data["error"]["code"] == "files_unavailable"


@pytest.mark.parametrize("budget", [0.02, 0.5])
def test_budget_verdict(plane: Plane, budget: float) -> None:
    job_id = plane.submit(
        model_id=plane.ready_inputs()["model_id"], budget={"macs_ratio": budget}, pruning={"min_ratio": 0.5}
    )
    plane.work()
    report = plane.report(job_id)
    assert report is not None
    (verdict,) = report["budget"]
    assert verdict["verdict"] == ("met" if budget == 0.5 else "unreachable")
    assert bool(verdict["reason"]) == (budget != 0.5)
