"""/v1/pipelines."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Body, Path, Response
from fastapi.responses import PlainTextResponse
from sqlalchemy.orm import Session

from app.body_limit import BoundedRoute
from app.datasets.service import DatasetNotFound, DatasetNotReady, DatasetRejected
from app.dependencies import ReadSession, WriteSession
from app.doorbell import DELIVER
from app.errors import BodyTooLarge, UnreadableBody, problems
from app.idempotency import IDEMPOTENCY_ERRORS, CreationDep
from app.jobs.service import CREATE_ERRORS
from app.links import links
from app.models.service import ModelNotFound, ModelNotReady, ModelRejected
from app.pages import After, Filter, Limit, SpanDep
from app.pipelines import service, summaries
from app.pipelines.schemas import (
    EXAMPLES,
    NewPipeline,
    NewRun,
    PipelinePage,
    PipelineView,
    PipelineWithSecret,
    RunPage,
    RunView,
)
from app.webhooks.service import TargetNotAllowed
from models_store.documents.pipeline import RunState, Trigger
from models_store.pipeline_runs import report_url

router = APIRouter(prefix="/v1/pipelines", tags=["pipelines"], route_class=BoundedRoute)

PipelineId = Annotated[str, Path(examples=["pip_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])]
RunId = Annotated[str, Path(examples=["run_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])]
BODY_ERRORS = (UnreadableBody, BodyTooLarge)
INPUT_ERRORS = (ModelNotFound, ModelNotReady, ModelRejected, DatasetNotFound, DatasetNotReady, DatasetRejected)
START_ERRORS = (*service.RUN_ERRORS, *INPUT_ERRORS, *CREATE_ERRORS)
RUN_READ_ERRORS = problems(service.PipelineNotFound, service.RunNotFound)


@router.post(
    "",
    status_code=201,
    response_model=PipelineWithSecret,
    summary="Save a pipeline",
    responses=links(201, "pipeline_id", "get_pipeline", "start_run", "list_runs", "delete_pipeline")
    | problems(TargetNotAllowed, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
def create_pipeline(new: Annotated[NewPipeline, Body(openapi_examples=EXAMPLES)], creation: CreationDep) -> Response:
    """A job with gates that its report has to pass. Keep the `secret`, which signs inbound events: it is shown once."""

    def create(session: Session) -> tuple[PipelineWithSecret, str]:
        pipeline, host = service.create(session, new, creation.plane.settings)
        return PipelineWithSecret.of(pipeline, host), f"/v1/pipelines/{pipeline.id}"

    return creation.once(new, create)


@router.get("", summary="List pipelines")
def list_pipelines(
    session: ReadSession, span: SpanDep, limit: Limit = 50, after: After = None, name: Filter = None
) -> PipelinePage:
    """Newest first, a page at a time."""
    rows = service.page(session, after, limit + 1, name, span)
    return PipelinePage.of([PipelineView.of(row, service.host_of(session, row)) for row in rows], limit)


@router.get("/{pipeline_id}", summary="Look at a pipeline", responses=problems(service.PipelineNotFound))
def get_pipeline(pipeline_id: PipelineId, session: ReadSession) -> PipelineView:
    """Its job, its gates, and where its inbound events go."""
    pipeline = service.get(session, pipeline_id)
    return PipelineView.of(pipeline, service.host_of(session, pipeline))


@router.delete(
    "/{pipeline_id}", status_code=204, summary="Delete a pipeline", responses=problems(service.PipelineNotFound)
)
def delete_pipeline(pipeline_id: PipelineId, session: WriteSession) -> None:
    """With its runs; their jobs and reports stay."""
    service.delete(session, pipeline_id)


@router.post(
    "/{pipeline_id}/runs",
    status_code=202,
    response_model=RunView,
    summary="Run a pipeline",
    responses=problems(*START_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
def start_run(pipeline_id: PipelineId, new: NewRun, creation: CreationDep, background: BackgroundTasks) -> Response:
    """Start its job on a model; the gates say `passed` or `failed` when it has ended."""

    def create(session: Session) -> tuple[RunView, str]:
        trigger = Trigger(repository=new.repository, ref=new.ref, sha=new.sha)
        pipeline = service.get(session, pipeline_id)
        run = service.start(session, pipeline, new, trigger, creation.plane.settings)
        return RunView.of(run), f"/v1/pipelines/{pipeline_id}/runs/{run.id}"

    for ring in ((), (DELIVER,)):
        background.add_task(creation.plane.doorbell.ring, *ring)
    return creation.once(new, create, HTTPStatus.ACCEPTED)


@router.get("/{pipeline_id}/runs", summary="List runs", responses=problems(service.PipelineNotFound))
def list_runs(
    pipeline_id: PipelineId,
    session: ReadSession,
    span: SpanDep,
    limit: Limit = 50,
    after: After = None,
    state: RunState | None = None,
) -> RunPage:
    """Newest first, a page at a time."""
    rows = service.runs(session, pipeline_id, after, limit + 1, state, span)
    return RunPage.of([RunView.of(row) for row in rows], limit)


@router.get("/{pipeline_id}/runs/{run_id}", summary="Look at a run", responses=RUN_READ_ERRORS)
def get_run(pipeline_id: PipelineId, run_id: RunId, session: ReadSession) -> RunView:
    """Its state, what each gate said, and why."""
    return RunView.of(service.run(session, pipeline_id, run_id))


@router.get(
    "/{pipeline_id}/runs/{run_id}/junit.xml",
    summary="Read a run as JUnit XML",
    response_class=Response,
    responses={200: {"content": {"application/xml": {"schema": {"type": "string"}}}}, **RUN_READ_ERRORS},
)
def get_junit(pipeline_id: PipelineId, run_id: RunId, session: ReadSession) -> Response:
    """A test case per gate, for a CI's report of tests."""
    run = service.run(session, pipeline_id, run_id)
    return Response(summaries.junit(service.get(session, pipeline_id), run), media_type="application/xml")


@router.get(
    "/{pipeline_id}/runs/{run_id}/summary.md",
    summary="Read a run as Markdown",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}, **RUN_READ_ERRORS},
)
def get_summary(pipeline_id: PipelineId, run_id: RunId, session: ReadSession) -> Response:
    """A heading and a table, for a CI's summary or a comment."""
    run = service.run(session, pipeline_id, run_id)
    pipeline = service.get(session, pipeline_id)
    link = report_url(session, pipeline, run)
    text = summaries.markdown(pipeline, run, service.report(session, run), link)
    return Response(text, media_type="text/markdown")
