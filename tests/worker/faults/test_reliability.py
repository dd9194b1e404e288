"""What must never happen: a lost job, a doubled effect, a silent stall."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from models_store.documents.job import JobState
from models_store.documents.report import Report
from tests.waiting import until
from tests.worker.networks import convnet
from tests.worker.plane import Plane

QUICK = {"rounds": 3}
SHORT = {"epochs": 12, "batch_size": 32}
ENDLESS = {"epochs": 1000, "batch_size": 32}


def _gone(process_id: int) -> bool:
    """Whether the process has ended; a zombie that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_worker_killed_in_mid_finetune(either_plane: Plane) -> None:
    plane = either_plane
    first = plane.start_worker()
    job_id = plane.submit(**plane.ready_inputs(), finetuning=SHORT, measuring=QUICK)
    plane.wait_for_training(job_id)
    orphan = plane.child_of(job_id)
    first.kill()
    until(lambda: _gone(orphan), 5, "the child to die with its worker")

    plane.start_sweeper()
    plane.start_worker()
    plane.wait(job_id, JobState.SUCCEEDED)

    assert plane.states(job_id) == ["queued", "running", "queued", "running", "succeeded"]
    told = plane.epochs(job_id, 1) + plane.epochs(job_id, 2)
    assert sorted(set(told)) == list(range(SHORT["epochs"] + 1))
    seconds = [event.seq for event in plane.events(job_id)]
    assert seconds == list(range(1, len(seconds) + 1))
    assert set(plane.artifacts(job_id)) == {"pruned.onnx", "report.html", "report.json"}
    assert Report.model_validate(plane.report(job_id)).attempt == 2
    assert plane.job(job_id).failed_attempts == 1


def test_cancel_in_mid_finetune(plane: Plane) -> None:
    plane.start_worker()
    job_id = plane.submit(**plane.ready_inputs(), finetuning=ENDLESS)
    plane.wait_for_training(job_id)
    child = plane.child_of(job_id)
    asked = time.monotonic()
    plane.cancel(job_id)
    plane.wait(job_id, JobState.CANCELLED)
    assert time.monotonic() - asked < 5
    assert _gone(child)
    assert not plane.artifacts(job_id)
    until(lambda: not list((plane.folder / "work").iterdir()), 5, "the work folder to be removed")


def test_drain(plane: Plane) -> None:
    """SIGTERM: the job goes back to the queue without an attempt spent, and another worker takes it."""
    first = plane.start_worker()
    job_id = plane.submit(model_id=plane.ready_inputs()["model_id"], measuring=QUICK)
    child = plane.child_of(job_id)
    first.terminate()
    assert first.wait(20) == 0
    assert _gone(child)
    assert plane.job(job_id).state is JobState.QUEUED
    plane.start_worker()
    job = plane.wait(job_id, JobState.SUCCEEDED)
    assert job.failed_attempts == 0
    assert plane.states(job_id) == ["queued", "running", "queued", "running", "succeeded"]


def test_lease_lost_while_stopped(plane: Plane) -> None:
    """A worker that slept past its lease wakes up, ends its child, and writes nothing."""
    plane.start_sweeper()
    sleeper = plane.start_worker()
    job_id = plane.submit(**plane.ready_inputs(), finetuning=ENDLESS)
    stale = plane.child_of(job_id)
    sleeper.send_signal(signal.SIGSTOP)
    plane.start_worker()
    until(lambda: plane.job(job_id).attempt == 2, 30, "the second attempt")
    before = [event.seq for event in plane.events(job_id) if event.attempt == 1]
    sleeper.send_signal(signal.SIGCONT)
    until(lambda: _gone(stale), 10, "the stale child to be killed")
    plane.cancel(job_id)
    plane.wait(job_id, JobState.CANCELLED)
    assert [event.seq for event in plane.events(job_id) if event.attempt == 1] == before


def test_broker_wiped(plane: Plane) -> None:
    """Every ring is lost; the sweeper rings again."""
    plane.start_worker()
    inputs = plane.ready_inputs()
    warm_up = plane.submit(model_id=inputs["model_id"], measuring=QUICK)
    plane.wait(warm_up, JobState.SUCCEEDED)  # the worker is connected and waits for rings
    job_id = plane.submit(model_id=inputs["model_id"], measuring=QUICK)
    plane.broker.client.flushall()
    plane.start_sweeper()
    plane.wait(job_id, JobState.SUCCEEDED)


def test_a_worker_says_what_it_takes_up(plane: Plane) -> None:
    _, job_id = plane.upload_model(convnet().SerializeToString())
    plane.start_worker()
    plane.wait(job_id, JobState.SUCCEEDED)
    assert f"{job_id}: attempt 1 of a job of kind inspect" in (plane.folder / "worker-0.log").read_text()


def test_jobs_in_parallel(plane: Plane) -> None:
    plane.start_worker(concurrency=2)
    inputs = plane.ready_inputs()
    jobs = [plane.submit(**inputs, finetuning=ENDLESS) for _ in range(2)]
    plane.ring()
    plane.ring()
    until(lambda: {plane.job(job_id).state for job_id in jobs} == {JobState.RUNNING}, 30, "both to run")
