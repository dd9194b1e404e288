"""POST /v1/jobs/{job_id}/artifacts/{name}/link makes a link, GET /v1/shared/… opens it."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response

from app.body_limit import BoundedRoute
from app.byte_ranges import RangeNotSatisfiable
from app.dependencies import CallerDep, PlaneDep, WriteSession
from app.errors import BodyTooLarge, UnreadableBody, problems
from app.jobs import files, service
from app.jobs.endpoints import FILE_RESPONSES, JobId
from app.plane import Plane, WholePlane, actor
from app.rate_limits import RateLimited
from app.sharing.errors import LinkInvalid, LinkOver, LinkTakenBack
from app.sharing.schemas import LinkView, NewLink
from models_store import errors
from models_store.shared_links import SharedLink, SharedLinkRepository

making = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=BoundedRoute)
opening = APIRouter(prefix="/v1/shared", tags=["jobs"])

Name = Annotated[str, Path(examples=["report.html"])]
NEW_LINK = NewLink()
REFUSALS = {errors.LinkForged: LinkInvalid, errors.LinkExpired: LinkOver, errors.LinkRevoked: LinkTakenBack}


@making.post(
    "/{job_id}/artifacts/{name}/link",
    summary="Make a link to a job's file",
    responses=problems(service.JobNotFound, service.ArtifactNotFound, UnreadableBody, BodyTooLarge),
)
def link_artifact(
    job_id: JobId,
    name: Name,
    request: Request,
    plane: PlaneDep,
    session: WriteSession,
    caller: CallerDep,
    new: Annotated[NewLink, Body()] = NEW_LINK,
) -> LinkView:
    """It opens this one file without an API key, in a browser say, for 15 minutes unless told, a day at most.

    It ends earlier with the key that made it. It needs the scope `read`.
    """
    artifact = service.artifact(session, job_id, name)
    link, path = SharedLinkRepository(session).sign(job_id, artifact.name, new.seconds, caller.key_id or "")
    base = plane.settings.public_url or str(request.base_url)
    return LinkView(url=base.rstrip("/") + path, expires_at=datetime.fromtimestamp(link.expires, UTC))


def _project(
    plane: WholePlane,
    request: Request,
    job_id: JobId,
    name: Name,
    expires: Annotated[int, Query(ge=0, lt=2**40, description="Seconds since 1970.")],
    signature: Annotated[str, Query(max_length=200)],
    key: Annotated[str, Query(max_length=200, description="Whose link it is.")] = "",
) -> Plane:
    """The plane as the link's project sees it. Raises LinkInvalid, LinkOver, LinkTakenBack, RateLimited."""
    link = SharedLink(job_id, name, expires, key)
    if "\0" in job_id + name + key:
        raise LinkInvalid("The link is refused: nothing was signed so.")
    try:
        with plane.database.session(read_only=True) as session:
            project_id = SharedLinkRepository(session).check(link, signature)
    except errors.LinkRefused as error:
        raise REFUSALS[type(error)](f"The link is refused: {error}.") from error
    if plane.rates is not None:
        plane.rates.count(f"links of {project_id}")
    return plane.of_project(project_id, actor(request, key or None))


@opening.get(
    "/{job_id}/{name}",
    summary="Open a link to a job's file",
    response_class=Response,
    responses=FILE_RESPONSES
    | problems(
        LinkInvalid,
        LinkTakenBack,
        LinkOver,
        service.JobNotFound,
        service.ArtifactNotFound,
        RangeNotSatisfiable,
        RateLimited,
    ),
)
def open_link(job_id: JobId, name: Name, request: Request, plane: Annotated[Plane, Depends(_project)]) -> Response:
    """The file; a page is shown, and any other file is downloaded. The link's signature stands for a key."""
    with plane.database.session(read_only=True) as session:
        artifact = service.artifact(session, job_id, name)
    response = files.send(request, artifact, plane.blobs, as_page=artifact.media_type.startswith("text/html"))
    response.headers["X-Robots-Tag"] = "noindex"
    return response
