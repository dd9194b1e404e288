"""Random masks spread over several workers: the same masks, the same scores and the same model as from one."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from redis import Redis

from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind
from models_store.documents.report import Report
from models_store.jobs import JobRepository
from models_store.presence import present
from models_store.tables import Job
from tests.waiting import until
from tests.worker.plane import Plane

DRAWN: dict[str, Any] = {
    "kernels": {"layout": "free", "sparsity": 0.5},
    "random_masks": {"granularity": "both", "count": 8, "family": 2, "bn_reestimation": True},
    "data": {"validation_fraction": 0.4},
    "finetuning": {"epochs": 0},
    "measuring": {"rounds": 3},
}
QUICK = {"spread_s": 0}


def found(plane: Plane, job_id: str) -> tuple[list[dict[str, Any]], str]:
    """What the report says of the masks, without the time taken, and the digest of the model."""
    report = Report.model_validate(plane.report(job_id))
    searches = [search.model_dump(exclude={"seconds"}) for search in report.random_masks]
    return searches, plane.artifacts(job_id)["pruned.onnx"].sha256


def parts(plane: Plane, job_id: str) -> list[Job]:
    with plane.database.session(read_only=True) as session:
        return list(JobRepository(session).list(parent_id=job_id, kind=JobKind.MASKS))


def at_work(plane: Plane, count: int) -> None:
    with Redis.from_url(plane.broker.url) as broker:
        until(lambda: present(broker)["worker", "cpu"] == count, 60, f"{count} workers: {plane.logs()}")


def test_one_worker_and_three_find_the_same(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    plane.start_worker(**QUICK)
    at_work(plane, 1)
    alone = plane.submit(**inputs, **DRAWN)
    plane.ring()
    plane.wait(alone, JobState.SUCCEEDED, timeout_s=240)
    assert parts(plane, alone) == []

    for _ in range(2):
        plane.start_worker(**QUICK)
    at_work(plane, 3)
    together = plane.submit(**inputs, **DRAWN)
    plane.ring()
    plane.wait(together, JobState.SUCCEEDED, timeout_s=240)
    helped = parts(plane, together)
    assert {part.state for part in helped} == {JobState.SUCCEEDED}
    assert len(helped) == 6, "three parts of channels, and three of kernels"
    assert len({part.worker for part in helped}) > 1
    assert plane.job(together).failed_attempts == 0
    assert plane.job(together).attempt == 3

    searches, model = found(plane, alone)
    assert [search["granularity"] for search in searches] == ["feature_map", "kernel"]
    assert all(len(search["errors"]) == 8 for search in searches)
    assert len({error for search in searches for error in search["errors"]}) > 2
    assert (searches, model) == found(plane, together)


@pytest.mark.slow
def test_workers_that_are_killed_lose_no_part(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    workers = [plane.start_worker(**QUICK) for _ in range(3)]
    plane.start_sweeper()
    at_work(plane, 3)
    job_id = plane.submit(**inputs, **DRAWN)
    plane.ring()

    def running() -> Job | None:
        return next((part for part in parts(plane, job_id) if part.state is JobState.RUNNING), None)

    for worker in workers[:2]:
        part = until(running, 120, f"a part at work: {plane.logs()}")
        assert part.worker is not None
        victim = next((w for w in workers if f"/{w.pid}/" in part.worker and w.poll() is None), worker)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    plane.wait(job_id, JobState.SUCCEEDED, timeout_s=300)
    assert {part.state for part in parts(plane, job_id)} == {JobState.SUCCEEDED}
    reference = plane.submit(**inputs, **DRAWN)
    plane.work()
    plane.wait(reference, JobState.SUCCEEDED)
    assert found(plane, reference) == found(plane, job_id)


@pytest.mark.slow
def test_parts_that_fail_are_scored_by_the_job_itself(plane: Plane) -> None:
    """And a worker by itself does it all, one part after the other."""
    inputs = plane.ready_inputs()
    plane.start_worker(**QUICK)
    plane.start_worker(**QUICK)
    at_work(plane, 2)
    for process in plane.processes:
        process.send_signal(signal.SIGSTOP)
    job_id = plane.submit(**inputs, **DRAWN)
    claim = plane.claim()
    assert claim is not None
    plane.run(claim, redis_url=plane.broker.url, **QUICK)
    assert plane.job(job_id).state is JobState.QUEUED
    assert plane.states(job_id) == ["queued", "running", "queued"]
    lost = parts(plane, job_id)[0]
    plane.cancel(lost.id)
    plane.work()
    plane.wait(job_id, JobState.SUCCEEDED)
    assert plane.job(lost.id).state is JobState.CANCELLED
    reference = plane.submit(**inputs, **DRAWN)
    plane.work()
    assert found(plane, reference) == found(plane, job_id)
