"""A worker whose disk is full says so, and the job goes on when there is room again."""

from __future__ import annotations

from sqlalchemy import update

from models_store.database_time import database_now
from models_store.documents.job import JobState
from models_store.tables import Job
from tests.worker.faults.accounting import wrong_with
from tests.worker.plane import Plane

QUICK = {"rounds": 3}


def due_again(plane: Plane, job_id: str) -> None:
    """As if the time before the next attempt had passed."""
    with plane.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(claimable_at=database_now()))


def check_second_attempt(plane: Plane, job_id: str, code: str) -> None:
    """The first one said what was missing; with that back, the second one ends well."""
    job = plane.job(job_id)
    assert job.state is JobState.QUEUED
    error = plane.events(job_id)[-1].data["error"]
    assert error["code"] == code
    assert error["error_class"] == "infrastructure"
    assert error["hint"]
    due_again(plane, job_id)
    plane.work()
    job = plane.wait(job_id, JobState.SUCCEEDED)
    assert job.attempt == 2
    assert wrong_with(plane, job) == []


def test_disk_full_under_the_child(plane: Plane) -> None:
    job_id = plane.submit(model_id=plane.ready_inputs()["model_id"], measuring=QUICK)
    plane.work(output_bytes=10_000)
    check_second_attempt(plane, job_id, "disk_full")
