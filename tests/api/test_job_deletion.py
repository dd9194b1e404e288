"""DELETE /v1/jobs/{id}: room for others, and nothing else is given back."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import InstrumentedAttribute

from models_store.database_time import database_now
from models_store.documents.job_spec import JobKind
from models_store.jobs import JobRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import Job, JobArtifact, JobEvent, JobReport, Project
from tests.api.answers import problem
from tests.api.reports import report_document
from tests.api.running_api import Service
from worker.garbage import collect

CONTENT = b"pruned" * 100


def used(service: Service, what: str) -> float:
    return service.http.get("/v1/usage").raise_for_status().json()[what]["used"]


def succeeded_job(service: Service) -> str:
    """The id of a job with a report and a file."""
    job_id = service.start_job()
    service.worker.succeed(service.worker.claim(), report_document(), {"pruned.onnx": CONTENT})
    return job_id


def test_what_a_job_made_goes_with_it(service: Service) -> None:
    before = used(service, "stored_bytes")
    job_id = succeeded_job(service)
    model_bytes = service.http.get("/v1/models").json()["items"][0]["size_bytes"]
    assert used(service, "stored_bytes") == before + model_bytes + len(CONTENT)
    assert service.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert used(service, "stored_bytes") == before + model_bytes
    for path in ("", "/report", "/artifacts", "/artifacts/pruned.onnx", "/events", "/logs"):
        problem(service.http.get(f"/v1/jobs/{job_id}{path}"), 404, "job_not_found")
    problem(service.http.delete(f"/v1/jobs/{job_id}"), 404, "job_not_found")
    with service.database.session(read_only=True) as session:
        columns: tuple[InstrumentedAttribute[str], ...] = (JobEvent.job_id, JobReport.job_id, JobArtifact.job_id)
        for column in columns:
            assert session.scalar(select(func.count()).where(column == job_id)) == 0
    assert len(collect(service.database, service.blobs, 0).set_aside) == 1
    assert len(service.http.get("/v1/models").json()["items"]) == 1


def test_a_job_that_has_not_ended_is_cancelled_first(service: Service) -> None:
    job_id = service.start_job()
    path = f"/v1/jobs/{job_id}"
    for state in ("queued", "running", "cancelling"):
        if state == "running":
            claim = service.worker.claim()
        if state == "cancelling":
            service.http.post(f"{path}/cancel").raise_for_status()
        refusal = problem(service.http.delete(path), 409, "job_in_use")
        assert state in refusal["detail"]
        assert "Cancel it first" in refusal["hint"]
    with service.database.session() as session:
        JobRepository(session).cancelled(claim)
    assert service.http.delete(path).status_code == 204


def test_parts_of_a_job_go_with_it(service: Service) -> None:
    job_id = succeeded_job(service)
    with service.database.of_project(DEFAULT_PROJECT).session() as session:
        part_id = JobRepository(session).create(JobKind.MASKS, {}, parent_id=job_id).id
    problem(service.http.delete(f"/v1/jobs/{job_id}"), 409, "job_in_use")
    service.worker.succeed(service.worker.claim())
    assert service.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    problem(service.http.get(f"/v1/jobs/{part_id}"), 404, "job_not_found")


def test_the_minutes_of_a_deleted_job_stay_used_until_the_month_is_over(service: Service) -> None:
    for minutes in (4, 2):
        job_id = service.start_job()
        claim = service.worker.claim()
        with service.database.session() as session:
            session.execute(update(Job).where(Job.id == job_id).values(started_at=database_now(-60 * minutes)))
        service.worker.fail(claim)
        before = used(service, "job_minutes")
        service.http.delete(f"/v1/jobs/{job_id}").raise_for_status()
        assert used(service, "job_minutes") == pytest.approx(before, abs=0.01)
    assert used(service, "job_minutes") == pytest.approx(6, abs=0.2)
    with service.database.session() as session:
        project = session.get_one(Project, DEFAULT_PROJECT)
        assert project.deleted_jobs_at is not None
        project.deleted_jobs_at -= timedelta(days=32)
    assert used(service, "job_minutes") == 0


def test_a_job_that_ended_in_an_earlier_month_leaves_no_minutes(service: Service) -> None:
    job_id = service.start_job()
    claim = service.worker.claim()
    with service.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(started_at=database_now(-240)))
    service.worker.fail(claim)
    with service.database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(finished_at=database_now(-32 * 24 * 3600)))
    service.http.delete(f"/v1/jobs/{job_id}").raise_for_status()
    assert used(service, "job_minutes") == 0


def test_a_run_keeps_its_verdict(service: Service) -> None:
    pipeline = {"name": "p", "job": {"model_id": service.ready_model(), "budget": {"macs_ratio": 0.5}}}
    pipeline_id = service.http.post("/v1/pipelines", json=pipeline).raise_for_status().json()["id"]
    run = service.http.post(f"/v1/pipelines/{pipeline_id}/runs", json={}).raise_for_status().json()
    service.worker.succeed(service.worker.claim(), report_document())
    path = f"/v1/pipelines/{pipeline_id}/runs/{run['id']}"
    before = service.http.get(path).json()
    assert before["state"] == "passed"
    assert service.http.delete(f"/v1/jobs/{before['job_id']}").status_code == 204
    after = service.http.get(path).raise_for_status().json()
    assert (after["state"], after["reason"], after["job_id"]) == ("passed", before["reason"], None)
    assert service.http.get(f"/v1/pipelines/{pipeline_id}/runs").is_success
