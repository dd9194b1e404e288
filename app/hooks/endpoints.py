"""/v1/hooks: events of GitHub, GitLab and others, signed with a pipeline's secret, start its runs."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.doorbell import DELIVER
from app.errors import problems
from app.hooks import events
from app.hooks.bodies import Body, EventTooLarge, Owner, TooManyEvents
from app.hooks.events import BadSignature, Source, UnreadableEvent
from app.pipelines import service
from app.pipelines.endpoints import START_ERRORS, PipelineId
from app.pipelines.schemas import RunView
from app.plane import WholePlane, actor
from models_store.audit import AuditRepository
from models_store.pipelines import PipelineRepository
from models_store.tables import Pipeline

router = APIRouter(prefix="/v1/hooks", tags=["pipelines"])

FORM = (
    'As GitHub and GitLab document it. Of `generic` senders `{"type": "build.done", "data": {…}}`, where `data` is '
    "what POST /v1/pipelines/{id}/runs takes."
)
# Not a parsed body: what is signed is the bytes.
BODY = {"content": {"application/json": {"schema": {"type": "object", "description": FORM}}}}


class HookAnswer(BaseModel):
    """What became of an event."""

    run: RunView | None = Field(description="The run that it started, now or when it came first.")
    ignored: str = Field(description="Why it started none.")


ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"model": HookAnswer, "description": "The event started a run."},
    200: {"description": "The event starts nothing, or has started its run before."},
}


def _of_the_pipeline(plane: WholePlane, project_id: Owner, request: Request) -> Iterator[Session]:
    """A transaction in the pipeline's project: no key names it, the signature speaks for the pipeline."""
    with plane.of_project(project_id, actor(request, None)).database.session() as session:
        yield session


PipelineSession = Annotated[Session, Depends(_of_the_pipeline, scope="function")]


@router.post(
    "/{source}/{pipeline_id}",
    summary="Receive an event",
    openapi_extra={"requestBody": BODY},
    responses=ANSWERS | problems(BadSignature, UnreadableEvent, EventTooLarge, TooManyEvents, *START_ERRORS),
)
def receive_event(
    source: Source,
    pipeline_id: PipelineId,
    request: Request,
    body: Body,
    plane: WholePlane,
    session: PipelineSession,
    background: BackgroundTasks,
    response: Response,
) -> HookAnswer:
    """Signed with the pipeline's secret: pushes and pull requests of GitHub and GitLab, or any Standard Webhooks
    message. The same event sent again starts nothing new."""
    pipeline = service.get(session, pipeline_id)
    event = events.read(source, request.headers, body, pipeline.secret)
    ignored = event.ignored or _of_another_branch(pipeline, event.branch)
    if ignored:
        return HookAnswer(run=None, ignored=ignored)
    repository = PipelineRepository(session)
    known = repository.run_of_event(pipeline, event.key)
    if known is not None:
        return HookAnswer(run=RunView.of(known), ignored="this event came before")
    run = service.start(session, pipeline, event.run, event.trigger, plane.settings)
    repository.remember_event(pipeline, event.key, run)
    AuditRepository(session).record(f"/v1/pipelines/{pipeline.id}/runs/{run.id}")
    for ring in ((), (DELIVER,)):
        background.add_task(plane.doorbell.ring, *ring)
    response.status_code = 202
    return HookAnswer(run=RunView.of(run), ignored="")


def _of_another_branch(pipeline: Pipeline, branch: str) -> str:
    if not pipeline.branches or any(fnmatchcase(branch, pattern) for pattern in pipeline.branches):
        return ""
    return f"the branch {branch or '(none)'} is not among those of the pipeline"
