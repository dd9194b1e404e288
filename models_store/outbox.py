"""What a change of a job's state is told to webhooks as: written in the same transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from models_store import pipeline_runs
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind
from models_store.documents.webhook import Happening
from models_store.tables import Job
from models_store.webhooks import WebhookRepository

TOLD = {
    JobState.RUNNING: Happening.JOB_RUNNING,
    JobState.SUCCEEDED: Happening.JOB_SUCCEEDED,
    JobState.FAILED: Happening.JOB_FAILED,
    JobState.CANCELLED: Happening.JOB_CANCELLED,
}


def job_changed(session: Session, job: Job, at: datetime) -> None:
    """To be called after every change of a job's state. Inspections are told as their upload's verdict,
    parts of a job not at all."""
    if job.kind == JobKind.MASKS:
        return
    webhooks = WebhookRepository(session)
    if job.kind == JobKind.INSPECT:
        if job.state.ended:
            webhooks.tell(job.project_id, _verdict(job), at, _upload(job))
    elif job.state in TOLD:
        webhooks.tell(job.project_id, TOLD[job.state], at, _job(job))
    if job.state.ended:
        pipeline_runs.settle(session, job, at)
    elif job.state is JobState.QUEUED:
        pipeline_runs.reopen(session, job)


def _verdict(job: Job) -> Happening:
    ready = job.state is JobState.SUCCEEDED
    if job.model_id is not None:
        return Happening.MODEL_READY if ready else Happening.MODEL_REJECTED
    return Happening.DATASET_READY if ready else Happening.DATASET_REJECTED


def _upload(job: Job) -> dict[str, Any]:
    id, resource = (job.model_id, "models") if job.model_id is not None else (job.dataset_id, "datasets")
    state = "ready" if job.state is JobState.SUCCEEDED else "rejected"
    return {"id": id, "state": state, "reason": job.error, "links": {"self": f"/v1/{resource}/{id}"}}


def _job(job: Job) -> dict[str, Any]:
    """Small on purpose: whoever wants the report fetches it, with a key of their own."""
    path = f"/v1/jobs/{job.id}"
    links = {"self": path} | ({"report": f"{path}/report"} if job.state is JobState.SUCCEEDED else {})
    return {
        "id": job.id,
        "kind": job.kind,
        "state": str(job.state),
        "label": job.label,
        "model_id": job.model_id,
        "dataset_id": job.dataset_id,
        "attempt": job.attempt,
        "error": job.error,
        "links": links,
    }
