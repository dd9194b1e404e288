"""The bodies of events: read whole before anybody knows whether they are signed, so bounded each and all together."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, Request

from app.errors import ApiError
from app.pipelines import service
from app.pipelines.endpoints import PipelineId
from app.plane import WholePlane
from models_store.pipelines import PipelineRepository

MAX_EVENT_BYTES = 25 * 2**20  # what GitHub sends at most: a push tells all of its commits
MAX_HELD_BYTES = 4 * MAX_EVENT_BYTES


class EventTooLarge(ApiError):
    """The event is larger than this service reads."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "event_too_large"
    hint = "Push in smaller parts, or start the run with POST /v1/pipelines/{id}/runs or `espalier ci`."


class TooManyEvents(ApiError):
    """Other large events are being read."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "too_many_events"
    hint = "Send the event again in a moment; on GitHub and GitLab, redeliver it."


class _Held:
    """Counts the bytes of all events that this process has in memory."""

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, size: int) -> None:
        """Raises TooManyEvents."""
        if self.bytes + size > MAX_HELD_BYTES:
            detail = f"More than {MAX_HELD_BYTES >> 20} MiB of events have come at once."
            raise TooManyEvents(detail, headers={"Retry-After": "5"})
        self.bytes += size


held = _Held()


def _owner(plane: WholePlane, pipeline_id: PipelineId) -> str:
    """The project of the pipeline. Raises PipelineNotFound."""
    with plane.database.session(read_only=True) as session:
        known = service.PIPELINE_ID.fullmatch(pipeline_id)
        project_id = PipelineRepository(session).owner(pipeline_id) if known else None
    if project_id is None:
        raise service.PipelineNotFound(f"There is no pipeline {pipeline_id}.")
    return project_id


Owner = Annotated[str, Depends(_owner)]


async def _body(request: Request, _: Owner) -> AsyncIterator[bytes]:
    """Read only once the pipeline is known, and counted until the event is dealt with. Raises EventTooLarge,
    TooManyEvents."""
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            if size + len(chunk) > MAX_EVENT_BYTES:
                raise EventTooLarge(f"It has more than {MAX_EVENT_BYTES >> 20} MiB.")
            held.add(len(chunk))
            size += len(chunk)
            chunks.append(chunk)
        yield b"".join(chunks)
    finally:
        held.bytes -= size


Body = Annotated[bytes, Depends(_body, scope="function")]
