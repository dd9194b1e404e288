"""A job that two processes train together: in the sandbox, drained, cancelled, and with any of them killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sqlalchemy import update

from models_store.database_time import database_now
from models_store.documents.job import JobState
from models_store.documents.report import Report
from models_store.tables import Job
from tests.waiting import until
from tests.worker.plane import Plane
from worker import sandbox
from worker.devices import visible_gpus
from worker.supervisor import Outcome

TRAINING = {"epochs": 40, "batch_size": 32, "precision": "float32"}
LAUNCHER = "launcher"


def processes_of(job_id: str) -> dict[str, int]:
    """The processes that carry the job out on this machine: the launcher, and the others by their rank."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_text().split("\0")
                environment = (folder / "environ").read_text().split("\0")
            except OSError:
                continue
            if any(job_id in word for word in command) and any("worker.runner" in word for word in command):
                rank = next((word.removeprefix("RANK=") for word in environment if word.startswith("RANK=")), LAUNCHER)
                found[rank] = int(folder.name)
    return found


def attempt(
    plane: Plane,
    job_id: str,
    when: Callable[[], object],
    action: Callable[[], object] | None,
    checkpoint_s: float = 30,
) -> Outcome:
    """One attempt in two processes, with `action` as soon as `when` is true, or else a drain; none of them is left."""
    with plane.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(claimable_at=database_now()))
    outcome = plane.cut_off(when, action, training_processes=2, checkpoint_s=checkpoint_s, grace_s=60)
    assert processes_of(job_id) == {}
    return outcome


def test_drained_then_to_the_end(plane: Plane) -> None:
    job_id = plane.submit(**plane.ready_inputs(), finetuning=TRAINING, measuring={"rounds": 3})
    saved = plane.folder / "work" / f"{job_id}-1" / "state" / "training.safetensors"
    assert attempt(plane, job_id, saved.exists, None, checkpoint_s=0) is Outcome.RELEASED
    assert plane.job(job_id).failed_attempts == 0

    assert attempt(plane, job_id, lambda: True, lambda: None) is Outcome.ENDED
    assert plane.job(job_id).state is JobState.SUCCEEDED, plane.job(job_id).error
    report = Report.model_validate(plane.report(job_id))
    assert report.training is not None
    assert report.training.processes == 2
    assert report.machine.sandbox == sandbox.best_tier()
    assert [row.epoch for row in report.training.epochs] == list(range(TRAINING["epochs"] + 1))
    assert plane.epochs(job_id, 2)[0] > 0  # it went on


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_one_killed_while_they_train(plane: Plane, rank: str) -> None:
    job_id = plane.submit(**plane.ready_inputs(), finetuning=TRAINING)
    saved = plane.folder / "work" / f"{job_id}-1" / "state" / "training.safetensors"
    attempt(plane, job_id, saved.exists, lambda: os.kill(processes_of(job_id)[rank], signal.SIGKILL), checkpoint_s=0)
    lost = plane.job(job_id)
    assert (lost.state, lost.failed_attempts) == (JobState.QUEUED, 1)
    error = plane.events(job_id)[-1].data["error"]
    assert error["code"] == "worker_lost"
    assert "SIGKILL" in error["message"]


def both(job_id: str) -> bool:
    return {"0", "1"} <= processes_of(job_id).keys()


@pytest.mark.slow
def test_cancelled(plane: Plane) -> None:
    job_id = plane.submit(**plane.ready_inputs(), finetuning=TRAINING)
    attempt(plane, job_id, lambda: both(job_id), lambda: plane.cancel(job_id))
    assert plane.job(job_id).state is JobState.CANCELLED


def test_supervisor_killed(plane: Plane) -> None:
    job_id = plane.submit(**plane.ready_inputs(), finetuning=TRAINING)
    worker = plane.start_worker(training_processes=2)
    plane.ring()
    until(lambda: both(job_id), 60, plane.logs)
    worker.kill()  # the launcher dies with it, and the others with the launcher
    until(lambda: not processes_of(job_id), 10, lambda: f"{processes_of(job_id)} to end")


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="this machine has two GPUs")
def test_gpus_that_are_not_there(plane: Plane) -> None:
    job_id = plane.submit(**plane.ready_inputs(), finetuning=TRAINING)
    plane.work(training_processes=2, device="cuda")
    job = plane.job(job_id)
    assert (job.state, job.failed_attempts) == (JobState.FAILED, 1)
    assert job.error["code"] == "too_few_gpus"


@pytest.mark.slow
def test_too_little_memory_to_begin_with(plane: Plane) -> None:
    """Which the process that lacks it says itself."""
    job_id = plane.submit(**plane.ready_inputs(), finetuning=TRAINING)
    plane.run(plane.claim(), training_processes=2, job_memory_bytes=2**30)
    (*_, last) = plane.events(job_id)
    assert last.data["error"]["code"] == "out_of_memory"


@pytest.mark.parametrize(
    ("named", "files", "count"),
    [
        (None, ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"], 2),
        (None, ["null"], 0),
        ("0,1,2", [], 3),
        ("", ["nvidia0"], 0),
        ("1,-1,2", ["nvidia0"], 1),
        ("GPU-8932f937,GPU-5f2a", [], 2),
        ("MIG-1,MIG-2", [], 1),
    ],
)
def test_visible_gpus(tmp_path: Path, named: str | None, files: list[str], count: int) -> None:
    for name in files:
        (tmp_path / name).touch()
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    assert visible_gpus(environment, tmp_path) == count
