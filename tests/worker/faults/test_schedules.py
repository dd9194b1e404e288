"""Pruning in rounds: each round's budget is met, and a job that is cut off in any of them ends with the same model."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import update

from models_store.database_time import database_now
from models_store.documents.event import EventType
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobSpec
from models_store.documents.report import Report
from models_store.tables import Job
from tests.worker.plane import Plane
from worker.engine.recovery.schedules import ratio_after
from worker.runner.html_report.formats import exact
from worker.supervisor import Outcome

EPOCHS = 200  # some seconds a round: the second is to be caught while it trains
JOB: dict[str, Any] = {
    "budget": {"macs_ratio": 0.2},
    "pruning": {"round_to": 1},
    "schedule": {"steps": 3, "epochs": EPOCHS},
    "finetuning": {"epochs": 2, "batch_size": 16, "precision": "float32", "crop_padding": 1},
    "measuring": {"rounds": 3},
}
SECOND = "state/round2-training.safetensors"


def test_ratios_lead_to_the_goal() -> None:
    assert [ratio_after(0.125, step, 3, "geometric") for step in (1, 2, 3)] == pytest.approx([0.5, 0.25, 0.125])
    assert [ratio_after(0.4, step, 3, "linear") for step in (1, 2, 3)] == pytest.approx([0.8, 0.6, 0.4])


def test_a_job_in_rounds_cut_off_in_the_second_ends_with_the_very_same_model(plane: Plane) -> None:
    inputs = plane.ready_inputs()
    job_id = plane.submit(**inputs, **JOB)

    def in_second_round() -> bool:
        return SECOND in plane.kept(job_id)

    # First a drain, which the training answers with a checkpoint; then SIGKILL without a warning.
    assert plane.cut_off(lambda: trained(plane, job_id) >= (1, 2), None, checkpoint_s=1000) is Outcome.RELEASED
    assert "state/round1-training.safetensors" in plane.kept(job_id)
    plane.cut_off(in_second_round, lambda: os.kill(plane.child_of(job_id), signal.SIGKILL), checkpoint_s=0.2)
    assert plane.job(job_id).failed_attempts == 1
    with plane.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(claimable_at=database_now()))
    assert plane.work() == [Outcome.ENDED]
    plane.wait(job_id, JobState.SUCCEEDED)

    report = Report.model_validate(plane.report(job_id))
    assert [row.step for row in report.rounds] == [1, 2, 3]
    for row, goal in zip(report.rounds, (0.2 ** (1 / 3), 0.2 ** (2 / 3), 0.2), strict=True):
        assert row.budget.macs_ratio == pytest.approx(goal)
        assert 0.7 * goal < row.macs_ratio <= goal
        assert row.proof.passed
        assert row.training is not None
        assert row.top1 is not None
    assert [len(row.training.epochs) - 1 for row in report.rounds if row.training] == [EPOCHS, EPOCHS, 2]
    assert report.rounds[-1].macs == report.pruned.macs <= 0.2 * report.original.macs
    assert report.accuracy is not None
    assert report.rounds[-1].top1 == report.accuracy.final.top1
    assert report.budget[0].verdict == "met"
    whole = sum(layer.macs_original for layer in report.layers)
    assert whole == report.original.macs, "layers are told beside those of the original"
    assert sum(layer.macs_pruned for layer in report.layers) == report.pruned.macs
    assert all((layer.time_pruned_ms or 0) > 0 and (layer.time_original_ms or 0) > 0 for layer in report.layers)
    page = b"".join(plane.blobs.stream(plane.artifacts(job_id)["report.html"].blob_key)).decode()
    assert "<h2>Rounds</h2>" in page
    assert exact(report.rounds[0].macs) in page

    metrics = [event for event in plane.events(job_id, EventType.METRIC) if event.data["stage"] == "iterate"]
    third = [event.data for event in metrics if event.attempt == 3]
    assert {each["round"] for each in third} == {2}, "the first round was not run again"

    undisturbed = plane.submit(**inputs, **JOB)
    assert plane.work() == [Outcome.ENDED]
    assert plane.artifacts(undisturbed)["pruned.onnx"].sha256 == plane.artifacts(job_id)["pruned.onnx"].sha256
    progress = [
        e.data["progress"] for e in plane.events(undisturbed, EventType.PROGRESS) if e.data["stage"] == "iterate"
    ]
    assert progress == sorted(progress)


def trained(plane: Plane, job_id: str) -> tuple[int, int]:
    """The round and the epoch that were told of last."""
    told = [
        e.data for e in plane.events(job_id, EventType.METRIC) if e.data["stage"] == "iterate" and "epoch" in e.data
    ]
    return (told[-1]["round"], told[-1]["epoch"]) if told else (0, 0)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"dataset_id": None}, "recovery 'iterative' needs images, and the job has no dataset"),
        ({"regularisation": {}}, "regularisation prepares or chooses one cut"),
        ({"random_masks": {}}, "random_masks prepares or chooses one cut"),
        ({"budget": {"macs_ratio": 0.5, "size_bytes": 1000}}, "a schedule goes towards ratios"),
        ({"budget": {"max_accuracy_drop": 0.01}}, "a schedule goes towards ratios"),
        ({"schedule": {"steps": 1}}, "greater than or equal to 2"),
    ],
)
def test_what_does_not_go_with_a_schedule_is_refused_at_submission(body: dict[str, Any], said: str) -> None:
    base = {"model_id": f"mdl_{0:032x}", "dataset_id": f"dst_{0:032x}", "budget": {"macs_ratio": 0.5}, "schedule": {}}
    JobSpec.model_validate(base)
    with pytest.raises(ValidationError, match=said):
        JobSpec.model_validate({**base, **body})
