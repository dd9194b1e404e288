"""/v1/jobs/{id}/logs: what happened, as lines of text."""

import re

import pytest

from app.jobs import log_lines
from models_store.documents.event import EventType
from models_store.jobs import JobRepository
from tests.api.answers import problem
from tests.api.running_api import Service


def lines(service: Service, job_id: str) -> list[str]:
    response = service.http.get(f"/v1/jobs/{job_id}/logs").raise_for_status()
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    return response.text.splitlines()


def test_each_event_but_progress_is_a_line(service: Service) -> None:
    job_id = service.start_job()
    claim = service.worker.claim()
    service.worker.log(claim, "layer \u2028\x1b[2Jconv1\nstays")
    told = [
        (EventType.STAGE, {"name": "finetune", "state": "running", "message": "2 epochs"}),
        (EventType.PROGRESS, {"stage": "finetune", "progress": 0.5}),
        (EventType.METRIC, {"stage": "finetune", "epoch": 1, "loss": 0.25}),
    ]
    with service.database.session() as session:
        JobRepository(session).append_events(claim, told)
    service.worker.fail(claim)
    found = lines(service, job_id)
    assert all(re.match(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z [01] ", line) for line in found)
    assert [line.split(" ", 1)[1] for line in found] == [
        "0 state queued",
        "1 state running",
        r"1 log info: layer \u2028\x1b[2Jconv1\nstays",
        "1 stage finetune: running (2 epochs)",
        "1 metric finetune: epoch 1, loss 0.25",
        "1 state failed: unknown_op: Node 'n' is unknown.",
    ]


def test_a_long_log_comes_whole(sqlite_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "BATCH", 7)
    job_id = sqlite_service.start_job()
    claim = sqlite_service.worker.claim()
    sqlite_service.worker.log(claim, *(f"line {number}" for number in range(19)))
    found = [line.rpartition("info: ")[2] for line in lines(sqlite_service, job_id)][2:]
    assert found == [f"line {number}" for number in range(19)]


def test_of_no_job_there_is_none(sqlite_service: Service) -> None:
    problem(sqlite_service.http.get(f"/v1/jobs/job_{0:032x}/logs"), 404, "job_not_found")
