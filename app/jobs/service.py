"""What happens to jobs: created, listed, cancelled, deleted, and what they leave behind."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import ApiError
from app.jobs.suitability import SUITABILITY_ERRORS, check
from app.models import service as models
from app.quotas import JOB_QUOTA_ERRORS
from models_store.documents.faults import sentences
from models_store.documents.inspection import DatasetInspection, ModelInspection
from models_store.documents.job import JobState
from models_store.documents.job_spec import AnySpec, JobKind, PruningWork, SweepSpec
from models_store.errors import InUse, NotFound
from models_store.jobs import JobRepository
from models_store.shared_links import HTML_REPORT
from models_store.spans import Span
from models_store.tables import Dataset, Job, JobArtifact

JOB_ID = re.compile(r"job_[0-9a-f]{32}")


class JobNotFound(ApiError):
    """There is no such job."""

    status = HTTPStatus.NOT_FOUND
    code = "job_not_found"
    hint = "GET /v1/jobs lists the jobs with their ids."


class InputGone(ApiError):
    """The model or dataset was deleted at this very moment."""

    status = HTTPStatus.CONFLICT
    code = "input_gone"
    hint = "Upload it again."


class NoStateDict(ApiError):
    """The job asks for safetensors of a model that was not uploaded as torchvision weights."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "no_state_dict"
    hint = "Leave export.safetensors out, or upload the weights with format torchvision."


class NoLabels(ApiError):
    """The job asks for what needs labels, of a dataset that has none."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "no_labels"
    hint = "Leave that out, or upload a dataset with one folder of images per class."


CREATE_ERRORS = (NoStateDict, NoLabels, *SUITABILITY_ERRORS, InputGone, *JOB_QUOTA_ERRORS)


class JobEnded(ApiError):
    """The job has ended and cannot be cancelled any more."""

    status = HTTPStatus.CONFLICT
    code = "job_ended"
    hint = "There is nothing left to cancel."


class JobInUse(ApiError):
    """The job has not ended, or another one may go on from it."""

    status = HTTPStatus.CONFLICT
    code = "job_in_use"
    hint = (
        "Cancel it first with POST /v1/jobs/{id}/cancel, or wait for its end; a point of a sweep that has not "
        "succeeded goes with the sweep."
    )


class NothingToRetry(ApiError):
    """Only a job that failed or was cancelled can be tried again."""

    status = HTTPStatus.CONFLICT
    code = "nothing_to_retry"
    hint = "Start a new job."


class ReportNotReady(ApiError):
    """The job has no report yet."""

    status = HTTPStatus.CONFLICT
    code = "report_not_ready"
    hint = "Follow GET /v1/jobs/{id}/events to its end, then try again."


class NoReport(ApiError):
    """The job ended without a report."""

    status = HTTPStatus.CONFLICT
    code = "no_report"
    hint = "GET /v1/jobs/{id} says how it ended, and POST /v1/jobs/{id}/retry tries it again."


class ArtifactNotFound(ApiError):
    """The job made no such file."""

    status = HTTPStatus.NOT_FOUND
    code = "artifact_not_found"
    hint = "GET /v1/jobs/{id}/artifacts lists the files; they appear when the job succeeds."


def create(session: Session, spec: AnySpec) -> Job:
    """A queued job. Raises what `get_ready` of models and datasets raises, and CREATE_ERRORS."""
    model = models.get_ready(session, spec.model_id)
    if isinstance(spec, PruningWork) and spec.export.safetensors and model.format != "torchvision":
        raise NoStateDict(f"{spec.model_id} was uploaded as ONNX: no state dict is known to hold its weights.")
    check(spec, ModelInspection.model_validate(model.inspection))
    if spec.dataset_id is not None:
        _refuse_without_labels(spec, datasets.get_ready(session, spec.dataset_id))
    try:
        if isinstance(spec, SweepSpec):
            return JobRepository(session).create_sweep(spec)
        return JobRepository(session).create(
            JobKind(spec.kind),
            spec.model_dump(mode="json"),
            model_id=spec.model_id,
            dataset_id=spec.dataset_id,
            deadline_s=spec.deadline_s,
            label=spec.label,
            priority=spec.priority,
        )
    except NotFound as error:
        raise InputGone(f"{error}.") from error


def _refuse_without_labels(spec: AnySpec, dataset: Dataset) -> None:
    if DatasetInspection.model_validate(dataset.inspection).classes:
        return
    try:
        spec.check_data("images")
    except ValidationError as error:
        raise NoLabels(f"{dataset.id} has no labels. {'; '.join(sentences(error.errors()))}.") from error


def page(
    session: Session,
    after: str | None,
    limit: int,
    *,
    state: JobState | None,
    kind: JobKind | None,
    model_id: str | None,
    label: str | None,
    span: Span,
    parent_id: str | None,
) -> Sequence[Job]:
    return JobRepository(session).list(after, limit, state, kind, model_id, label, span, parent_id)


def get(session: Session, job_id: str) -> Job:
    """Raises JobNotFound."""
    job = JobRepository(session).get(job_id) if JOB_ID.fullmatch(job_id) else None
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    return job


def cancel(session: Session, job_id: str) -> Job:
    """Ask a job to stop; asking twice does no harm. Raises JobNotFound, and JobEnded where it ended otherwise."""
    get(session, job_id)
    job = JobRepository(session).request_cancel(job_id)
    if job is None:
        raise JobNotFound(f"There is no job {job_id}.")
    if job.state in (JobState.SUCCEEDED, JobState.FAILED):
        raise JobEnded(f"{job_id} has {job.state}.", "There is nothing left to cancel.")
    return job


def delete(session: Session, job_id: str) -> None:
    """With its report and files, and with a sweep its points. Raises JobNotFound, JobInUse."""
    get(session, job_id)
    try:
        JobRepository(session).delete(job_id)
    except InUse as error:
        raise JobInUse(f"{error}.") from error


def retry(session: Session, job_id: str, *, afresh: bool) -> Job:
    """Queue an ended job again. Raises JobNotFound, NothingToRetry, InputGone."""
    job = get(session, job_id)
    if job.kind == JobKind.INSPECT:
        raise NothingToRetry(f"{job_id} was an inspection.", "Send the model or dataset again.")
    try:
        retried = JobRepository(session).retry(job_id, afresh=afresh)
    except NotFound as error:
        raise InputGone(f"{error}.", "Upload it again, and start a new job.") from error
    if retried is None:
        hint = "Start a new job." if job.state is JobState.SUCCEEDED else "Cancel it first, or wait for its end."
        raise NothingToRetry(f"{job_id} is {job.state}.", hint)
    return retried


def report(session: Session, job_id: str) -> dict[str, Any]:
    """The report document. Raises JobNotFound, ReportNotReady, NoReport."""
    document = JobRepository(session).report(_reported(session, job_id).id)
    if document is None:
        raise NoReport(f"{job_id} has succeeded without one.")
    return document


def html_report(session: Session, job_id: str) -> JobArtifact:
    """The page made from the report. Raises JobNotFound, ReportNotReady, NoReport, ArtifactNotFound."""
    return artifact(session, _reported(session, job_id).id, HTML_REPORT)


def artifacts(session: Session, job_id: str) -> Sequence[JobArtifact]:
    """Raises JobNotFound."""
    get(session, job_id)
    return JobRepository(session).artifacts(job_id)


def artifact(session: Session, job_id: str, name: str) -> JobArtifact:
    """Raises JobNotFound, ArtifactNotFound."""
    get(session, job_id)
    found = JobRepository(session).artifact(job_id, name) if "\0" not in name else None
    if found is None:
        raise ArtifactNotFound(f"{job_id} has no file {name}.")
    return found


def _reported(session: Session, job_id: str) -> Job:
    """A job that has a report. Raises JobNotFound, ReportNotReady, NoReport."""
    job = get(session, job_id)
    if not job.state.ended:
        raise ReportNotReady(f"{job_id} is {job.state}.")
    if job.kind == JobKind.INSPECT:
        raise NoReport(f"{job_id} was an inspection.", "What it found is shown with the model or dataset.")
    if job.state is not JobState.SUCCEEDED:
        reason = f": {job.error['message']}" if job.error else "."
        raise NoReport(f"{job_id} has ended as {job.state}{reason}", job.error["hint"] if job.error else "")
    return job
