"""/v1/jobs."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from sqlalchemy.orm import Session

from app import etags, head
from app.body_limit import BoundedRoute
from app.byte_ranges import RangeNotSatisfiable
from app.datasets.service import DatasetNotFound, DatasetNotReady, DatasetRejected
from app.dependencies import PlaneDep, ReadSession, WriteSession
from app.doorbell import DELIVER
from app.errors import BodyTooLarge, UnreadableBody, problems
from app.idempotency import IDEMPOTENCY_ERRORS, CreationDep
from app.jobs import events, files, log_lines, service
from app.jobs.accept import prefers_html
from app.jobs.schemas import SPEC_EXAMPLES, ArtifactList, JobPage, JobView, Retry
from app.links import links
from app.models.service import ModelNotFound, ModelNotReady, ModelRejected
from app.pages import After, Filter, Limit, SpanDep
from app.quotas import JOB_QUOTA_ERRORS
from models_store.documents.event import EventType
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind, NewJob, SweepSpec
from models_store.documents.reports import ReportOfAnyKind

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=BoundedRoute)

JobId = Annotated[str, Path(examples=["job_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])]
EventNumber = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=2**31)]

JOB_LINKS = links(202, "job_id", "get_job", "follow_job", "cancel_job", "list_artifacts", "get_report", "delete_job")
AcceptHeader = Annotated[str | None, Header(include_in_schema=False)]

INPUT_ERRORS = (ModelNotFound, DatasetNotFound, ModelNotReady, ModelRejected, DatasetNotReady, DatasetRejected)
REPORT_ERRORS = (service.JobNotFound, service.ArtifactNotFound, service.ReportNotReady, service.NoReport)

RETRY = Retry()
Responses = dict[int | str, dict[str, Any]]
SSE_MESSAGE = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "event": {"type": "string", "enum": list(EventType)},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["id", "event", "data"],
}
EVENTS: Responses = {
    200: {
        "description": "`id` is the event's number, `event` its type, `data` an `Event` document.",
        "content": {"text/event-stream": {"itemSchema": SSE_MESSAGE}},
    },
    204: {"description": "The job has ended, and no event is left."},
}
EVENT_HEADERS = {"X-Accel-Buffering": "no"}
UNCHANGED: Responses = {304: {"description": "The version that If-None-Match names is the current one."}}
ALSO_HTML: Responses = {200: {"content": {"text/html": {}}}}
FILE_RESPONSES: Responses = UNCHANGED | {
    200: {"description": "The file.", "content": {"*/*": {"schema": {"type": "string"}}}},
    206: {"description": "The part of it that a Range header asked for."},
}


@router.post(
    "",
    status_code=202,
    summary="Start a job",
    response_model=JobView,
    responses=JOB_LINKS
    | problems(*INPUT_ERRORS, *service.CREATE_ERRORS, UnreadableBody, BodyTooLarge, *IDEMPOTENCY_ERRORS),
)
def create_job(
    spec: Annotated[NewJob, Body(openapi_examples=SPEC_EXAMPLES)],
    creation: CreationDep,
    background: BackgroundTasks,
) -> Response:
    """Queue a job on a model that is `ready`: `prune` it (the default), or `estimate` what pruning would cost and gain,
    or `sweep` over several budgets, each of which becomes a prune job of its own.

    What is left out has the defaults that the schema shows.
    """

    def create(session: Session) -> tuple[JobView, str]:
        job = service.create(session, spec)
        return JobView.of(job), f"/v1/jobs/{job.id}"

    for _ in range(len(spec.budgets) if isinstance(spec, SweepSpec) else 1):
        background.add_task(creation.plane.doorbell.ring)  # runs after the commit and the answer
    return creation.once(spec, create, HTTPStatus.ACCEPTED)


@router.get("", summary="List jobs")
def list_jobs(
    session: ReadSession,
    span: SpanDep,
    limit: Limit = 50,
    after: After = None,
    state: JobState | None = None,
    kind: JobKind | None = None,
    model_id: Filter = None,
    label: Filter = None,
    parent_id: Filter = None,
) -> JobPage:
    """Newest first, a page at a time; inspections of uploads only with `kind=inspect`."""
    rows = service.page(
        session,
        after,
        limit + 1,
        state=state,
        kind=kind,
        model_id=model_id,
        label=label,
        span=span,
        parent_id=parent_id,
    )
    return JobPage.of([JobView.of(job) for job in rows], limit)


@router.get("/{job_id}", summary="Look at a job", responses=problems(service.JobNotFound))
def get_job(job_id: JobId, session: ReadSession) -> JobView:
    """Its state, its stages with their progress, and the reason where it failed."""
    return JobView.of(service.get(session, job_id))


@router.delete(
    "/{job_id}",
    status_code=204,
    summary="Delete a job",
    responses=problems(service.JobNotFound, service.JobInUse),
)
def delete_job(job_id: JobId, session: WriteSession) -> None:
    """One that has ended, with its report and files, and so their share of the quota; with a sweep go its points.

    A point by itself can go once its sweep has succeeded, whose report stays as it is. Runs of pipelines keep their
    verdicts. The minutes that the job used stay used.
    """
    service.delete(session, job_id)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses=problems(service.JobNotFound, service.JobEnded),
)
def cancel_job(job_id: JobId, plane: PlaneDep, session: WriteSession, background: BackgroundTasks) -> JobView:
    """A queued job is cancelled at once, a running one within seconds: it is `cancelling` until then."""
    background.add_task(plane.doorbell.ring, DELIVER)
    return JobView.of(service.cancel(session, job_id))


@router.post(
    "/{job_id}/retry",
    status_code=202,
    summary="Try a job again",
    response_model=JobView,
    responses=problems(
        service.JobNotFound,
        service.NothingToRetry,
        service.InputGone,
        *JOB_QUOTA_ERRORS,
        UnreadableBody,
        BodyTooLarge,
        *IDEMPOTENCY_ERRORS,
    ),
)
def retry_job(
    job_id: JobId, creation: CreationDep, background: BackgroundTasks, retry: Annotated[Retry, Body()] = RETRY
) -> Response:
    """Queue a job that failed or was cancelled; it goes on after what it had finished, or from the start."""

    def again(session: Session) -> tuple[JobView, str]:
        job = service.retry(session, job_id, afresh=retry.begin == "start")
        return JobView.of(job), f"/v1/jobs/{job.id}"

    for ring in ((), (DELIVER,)):
        background.add_task(creation.plane.doorbell.ring, *ring)  # runs after the commit and the answer
    return creation.once(retry, again, HTTPStatus.ACCEPTED)


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=Response,
    responses=EVENTS | problems(service.JobNotFound),
)
def follow_job(
    job_id: JobId,
    request: Request,
    plane: PlaneDep,
    session: ReadSession,
    last_event_id: EventNumber = None,
    after: Annotated[int, Query(ge=0, lt=2**31, description="For clients that cannot send Last-Event-ID.")] = 0,
) -> Response:
    """Server-sent events from the job's first to its last; Last-Event-ID resumes after the event it names."""
    job = service.get(session, job_id)
    after_seq = after if last_event_id is None else last_event_id
    if job.state.ended and after_seq >= job.event_seq:
        return Response(status_code=204)  # tells a browser's EventSource not to come back
    if head.asked_for(request):
        return Response(media_type="text/event-stream", headers=EVENT_HEADERS)
    body = events.stream(plane.database, job_id, after_seq, plane.settings.event_poll_s)
    return StreamingResponse(body, media_type="text/event-stream", headers=EVENT_HEADERS)


@router.get(
    "/{job_id}/logs",
    summary="Read a job's log",
    response_class=PlainTextResponse,
    responses=problems(service.JobNotFound),
)
def get_log(job_id: JobId, plane: PlaneDep, session: ReadSession) -> Response:
    """What has happened so far as plain text, a line each: time, attempt, and what `/events` streams but progress."""
    service.get(session, job_id)
    return StreamingResponse(log_lines.read(plane.database, job_id), media_type="text/plain; charset=utf-8")


@router.get(
    "/{job_id}/report",
    summary="Read a job's report",
    response_model=ReportOfAnyKind,
    responses=ALSO_HTML | UNCHANGED | problems(*REPORT_ERRORS),
)
def get_report(
    job_id: JobId, request: Request, plane: PlaneDep, session: ReadSession, accept: AcceptHeader = None
) -> Response:
    """What was measured, original and pruned side by side: JSON, or a page where Accept prefers `text/html`."""
    if prefers_html(accept or ""):
        response = files.send(request, service.html_report(session, job_id), plane.blobs, as_page=True)
    else:
        response = etags.send_json(request, service.report(session, job_id))
    response.headers["Vary"] = "Accept"
    return response


@router.get(
    "/{job_id}/report.html",
    summary="Read a job's report as a page",
    response_class=HTMLResponse,
    responses=UNCHANGED | problems(*REPORT_ERRORS),
)
def get_html_report(job_id: JobId, request: Request, plane: PlaneDep, session: ReadSession) -> Response:
    """The same report for people: one page that can be saved and sent around."""
    return files.send(request, service.html_report(session, job_id), plane.blobs, as_page=True)


@router.get("/{job_id}/artifacts", summary="List a job's files", responses=problems(service.JobNotFound))
def list_artifacts(job_id: JobId, session: ReadSession) -> ArtifactList:
    """Name, size and sha256 of each; there are none before the job has succeeded."""
    return ArtifactList.of(service.artifacts(session, job_id))


@router.get(
    "/{job_id}/artifacts/{name}",
    summary="Download a job's file",
    response_class=Response,
    responses=FILE_RESPONSES | problems(service.JobNotFound, service.ArtifactNotFound, RangeNotSatisfiable),
)
def get_artifact(
    job_id: JobId,
    name: Annotated[str, Path(examples=["pruned.onnx"])],
    request: Request,
    plane: PlaneDep,
    session: ReadSession,
) -> Response:
    """The bytes; Range resumes a download, and ETag and Repr-Digest carry the sha256."""
    return files.send(request, service.artifact(session, job_id, name), plane.blobs)
