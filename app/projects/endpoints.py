"""/v1/projects. The only routes whose transactions see all projects; they need the scope `instance`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy.orm import Session

from app.body_limit import BoundedRoute
from app.dependencies import CallerDep
from app.errors import BodyTooLarge, UnreadableBody, problems
from app.idempotency import IDEMPOTENCY_ERRORS, Creation, CreationDep
from app.keys import service as keys
from app.keys.schemas import SHOWN_ONCE, KeyWithText, NewKey
from app.links import links
from app.pages import After, Limit
from app.plane import WholePlane, actor
from app.projects import service
from app.projects.schemas import NewProject, ProjectChange, ProjectPage, ProjectView
from models_store.audit import BY, AuditRepository
from models_store.projects import ProjectRepository

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=BoundedRoute)

ProjectId = Annotated[str, Path(examples=["prj_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])]
BODY_ERRORS = (UnreadableBody, BodyTooLarge)


def _read(plane: WholePlane) -> Iterator[Session]:
    with plane.database.session(read_only=True) as session:
        yield session


def _write(plane: WholePlane, caller: CallerDep, request: Request) -> Iterator[Session]:
    with plane.database.session() as session:
        session.info[BY] = actor(request, caller.key_id)
        yield session
        AuditRepository(session).record(request.url.path, caller.project_id)


ReadAny = Annotated[Session, Depends(_read, scope="function")]
WriteAny = Annotated[Session, Depends(_write, scope="function")]


def _in_project(project_id: ProjectId, plane: WholePlane, creation: CreationDep, request: Request) -> Creation:
    """A creation in the named project instead of the caller's own. Raises ProjectNotFound."""
    with plane.database.session(read_only=True) as session:
        project = service.get(session, project_id)
    return replace(creation, plane=plane.of_project(project.id, actor(request, creation.caller.key_id)))


@router.post(
    "",
    status_code=201,
    response_model=ProjectView,
    summary="Make a project",
    responses=links(201, "project_id", "get_project", "change_project", "create_project_key")
    | problems(service.ProjectNameTaken, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
def create_project(new: NewProject, creation: CreationDep) -> Response:
    """It has nothing yet: make it a key with the scope `admin` next."""

    def create(session: Session) -> tuple[ProjectView, str]:
        project = service.create(session, new.name)
        return ProjectView.of(project), f"/v1/projects/{project.id}"

    return creation.once(new, create)


@router.get("", summary="List projects")
def list_projects(session: ReadAny, limit: Limit = 50, after: After = None) -> ProjectPage:
    """Newest first, a page at a time."""
    rows = ProjectRepository(session).list(after, limit + 1)
    return ProjectPage.of([ProjectView.of(project) for project in rows], limit)


@router.get("/{project_id}", summary="Look at a project", responses=problems(service.ProjectNotFound))
def get_project(project_id: ProjectId, session: ReadAny) -> ProjectView:
    """Its name, and whether its keys are accepted."""
    return ProjectView.of(service.get(session, project_id))


@router.patch(
    "/{project_id}",
    summary="Change a project",
    responses=problems(service.ProjectNotFound, service.ProjectNameTaken, service.OwnProject, *BODY_ERRORS),
)
def change_project(project_id: ProjectId, wanted: ProjectChange, session: WriteAny, caller: CallerDep) -> ProjectView:
    """Its name, and whether its keys are accepted; its jobs run on either way."""
    return ProjectView.of(service.change(session, project_id, wanted, caller.project_id))


@router.post(
    "/{project_id}/keys",
    status_code=201,
    response_model=KeyWithText,
    summary="Make a key of a project",
    responses=problems(service.ProjectNotFound, keys.AlreadyOver, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
def create_project_key(new: NewKey, creation: Annotated[Creation, Depends(_in_project)]) -> Response:
    """Its first one, say, with the scope `admin`: whoever has it makes the others with POST /v1/keys."""

    def create(session: Session) -> tuple[KeyWithText, str]:
        key, text = keys.create(session, new, creation.caller)
        return KeyWithText.with_text(key, text), f"/v1/keys/{key.id}"

    return creation.once(new, create, not_kept=SHOWN_ONCE)
