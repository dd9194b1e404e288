"""An attempt goes on where the one before it was cut off: no finished stage again, and the very same weights."""

from __future__ import annotations

import hashlib
import io
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import update

from models_store.checkpoints import scope
from models_store.database_time import database_now
from models_store.documents.event import ErrorClass, EventType, JobError
from models_store.documents.job import JobState
from models_store.documents.report import Report
from models_store.jobs import Claim, JobRepository
from models_store.tables import Job
from tests.waiting import until
from tests.worker.plane import Plane
from worker.checkpoint_keeper import CheckpointKeeper
from worker.supervisor import Outcome
from worker.sweeper import remove_checkpoints
from worker.work_folder import WorkFolder

# Dropout is all that is missing: batch statistics, momentum, shuffling, crops and flips are in.
TRAINING = {"epochs": 150, "batch_size": 16, "crop_padding": 1, "horizontal_flip": True, "label_smoothing": 0.1}
TRAINING |= {"precision": "float32"}  # a trial might choose otherwise for the job beside it
QUICK = {"rounds": 3}
ERROR = JobError(code="x", error_class=ErrorClass.USER, message="x")
TRAINED = "state/training.safetensors"


def stages_run(plane: Plane, job_id: str, attempt: int) -> list[str]:
    stages = (event for event in plane.events(job_id, EventType.STAGE) if event.attempt == attempt)
    return [event.data["name"] for event in stages if event.data["state"] == "running"]


def test_cut_off_twice_and_bit_equal(plane: Plane) -> None:
    """First a drain, then SIGKILL without a warning; beside it the same job that nobody disturbs."""
    inputs = plane.ready_inputs()
    job_id = plane.submit(**inputs, finetuning=TRAINING, measuring=QUICK)

    # The training has begun when its first row is told; all that is kept of it is what SIGTERM makes it keep.
    assert plane.cut_off(lambda: plane.epochs(job_id, 1), None, checkpoint_s=1000) is Outcome.RELEASED
    assert plane.job(job_id).failed_attempts == 0
    drained = plane.kept(job_id)
    assert {"state/baseline.json", "state/estimate.json", "state/prune.json", "state/cut.onnx", TRAINED} < set(drained)

    plane.cut_off(
        lambda: plane.kept(job_id)[TRAINED] != drained[TRAINED],
        lambda: os.kill(plane.child_of(job_id), signal.SIGKILL),
        checkpoint_s=0.3,
    )
    assert plane.job(job_id).failed_attempts == 1
    with plane.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(claimable_at=database_now()))
    assert plane.work() == [Outcome.ENDED]

    assert plane.wait(job_id).state is JobState.SUCCEEDED
    assert stages_run(plane, job_id, 1) == ["baseline", "estimate", "prune", "recover", "finetune"]
    assert stages_run(plane, job_id, 2) == ["finetune"]
    assert stages_run(plane, job_id, 3) == ["finetune", "evaluate", "export", "measure", "report"]
    report = Report.model_validate(plane.report(job_id))
    assert report.training is not None
    assert [row.epoch for row in report.training.epochs] == list(range(TRAINING["epochs"] + 1))
    assert {"baseline", "estimate", "prune", "recover", "finetune"} < set(report.stage_seconds)

    undisturbed = plane.submit(**inputs, finetuning=TRAINING, measuring=QUICK)
    assert plane.work() == [Outcome.ENDED]
    same = plane.artifacts(undisturbed)["pruned.onnx"].sha256
    assert plane.artifacts(job_id)["pruned.onnx"].sha256 == same

    assert plane.kept(job_id) == {}
    assert not [path for path in (plane.folder / "blobs" / "checkpoints").rglob("*") if path.is_file()]


class Kept:
    """A job in progress whose work folder has two files that may be kept."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.job_id = plane.submit(**plane.ready_inputs())
        claim = plane.claim()
        assert claim is not None
        self.claim: Claim = claim
        self.folder = WorkFolder(plane.folder / "attempt")
        self.folder.create()
        for name in ("one", "two"):
            (self.folder.state / name).write_text(name)
        self.files = {path: _digest(self.folder.root / path) for path in ("state/one", "state/two")}

    def keeper(self) -> CheckpointKeeper:
        return CheckpointKeeper(self.claim, self.plane.database, self.plane.blobs, self.folder)

    def keep(self, files: dict[str, str]) -> None:
        keeper = self.keeper()
        keeper.offer(files)
        keeper.close(keep_last=True)


@pytest.fixture
def attempt(plane: Plane) -> Kept:
    return Kept(plane)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_kept_and_restored(plane: Plane, attempt: Kept) -> None:
    attempt.keep(attempt.files)
    attempt.folder.create()
    assert attempt.keeper().restore()
    assert {path.name: path.read_text() for path in attempt.folder.state.iterdir()} == {"one": "one", "two": "two"}


def test_begins_anew_where_a_file_is_lost(plane: Plane, attempt: Kept) -> None:
    attempt.keep(attempt.files)
    plane.blobs.delete(plane.kept(attempt.job_id)["state/two"])
    attempt.folder.create()
    assert not attempt.keeper().restore()
    assert not list(attempt.folder.state.iterdir())


def test_file_that_changed_meanwhile_is_passed_over(plane: Plane, attempt: Kept) -> None:
    attempt.keep(attempt.files)
    before = plane.kept(attempt.job_id)
    attempt.keep({**attempt.files, "state/two": hashlib.sha256(b"two, as it was when told").hexdigest()})
    attempt.keep({**attempt.files, "state/three": "0" * 64})
    assert plane.kept(attempt.job_id) == before


def test_link_is_not_followed(plane: Plane, attempt: Kept, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of another job")
    (attempt.folder.state / "link").symlink_to(secret)
    attempt.keep({"state/link": _digest(secret)})
    assert plane.kept(attempt.job_id) == {}
    assert plane.blobs.delete_scope(scope(attempt.job_id)) == 0


def test_what_is_replaced_is_deleted(plane: Plane, attempt: Kept) -> None:
    keeper = attempt.keeper()
    keeper.offer(attempt.files)
    until(lambda: plane.kept(attempt.job_id), 20, "the first checkpoint")
    first = plane.kept(attempt.job_id)
    (attempt.folder.state / "one").write_text("one, later")
    keeper.offer({**attempt.files, "state/one": _digest(attempt.folder.state / "one")})
    keeper.close(keep_last=True)
    assert not plane.blobs.exists(first["state/one"])
    assert plane.kept(attempt.job_id)["state/two"] == first["state/two"]
    assert plane.blobs.exists(first["state/two"])


def test_swept_when_no_attempt_can_need_it(plane: Plane, attempt: Kept) -> None:
    attempt.keep(attempt.files)
    plane.blobs.put(io.BytesIO(b"of a job that was deleted"), scope("job_gone"))
    assert remove_checkpoints(plane.database, plane.blobs) == ["job_gone"]
    with plane.database.session() as session:
        JobRepository(session).fail(attempt.claim, ERROR)
    assert remove_checkpoints(plane.database, plane.blobs, retention_s=60) == []
    assert plane.kept(attempt.job_id)
    assert remove_checkpoints(plane.database, plane.blobs, retention_s=-1) == [attempt.job_id]
    assert plane.kept(attempt.job_id) == {}
    assert plane.blobs.scopes("checkpoints") == []


def test_stale_attempt_replaces_nothing(plane: Plane, attempt: Kept) -> None:
    attempt.keep({"state/one": attempt.files["state/one"]})
    before = plane.kept(attempt.job_id)
    with plane.database.session() as session:
        session.execute(update(Job).values(lease_expires_at=database_now(-1)))
        JobRepository(session).reap_expired()
    attempt.keep(attempt.files)
    assert plane.kept(attempt.job_id) == before
