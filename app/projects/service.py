"""What happens to projects."""

import re
from http import HTTPStatus

from sqlalchemy.orm import Session

from app.errors import ApiError
from app.projects.schemas import ProjectChange
from models_store.errors import NameTaken
from models_store.projects import ProjectRepository
from models_store.tables import Project

PROJECT_ID = re.compile(r"prj_[0-9a-f]{32}")


class ProjectNotFound(ApiError):
    """There is no such project."""

    status = HTTPStatus.NOT_FOUND
    code = "project_not_found"
    hint = "GET /v1/projects lists the projects with their ids."


class ProjectNameTaken(ApiError):
    """Another project has this name."""

    status = HTTPStatus.CONFLICT
    code = "project_name_taken"
    hint = "Choose another name; GET /v1/projects lists those in use."


class OwnProject(ApiError):
    """A project is not disabled with a key of its own."""

    status = HTTPStatus.CONFLICT
    code = "own_project"
    hint = "Use an instance key of another project, which can also enable it again."


def create(session: Session, name: str) -> Project:
    """Raises ProjectNameTaken."""
    try:
        return ProjectRepository(session).add(name)
    except NameTaken as error:
        raise ProjectNameTaken(f"{error}.") from error


def get(session: Session, project_id: str) -> Project:
    """Raises ProjectNotFound."""
    project = ProjectRepository(session).get(project_id) if PROJECT_ID.fullmatch(project_id) else None
    if project is None:
        raise ProjectNotFound(f"There is no project {project_id}.")
    return project


def change(session: Session, project_id: str, wanted: ProjectChange, caller_project_id: str) -> Project:
    """Raises ProjectNotFound, ProjectNameTaken, OwnProject."""
    project = get(session, project_id)
    if wanted.enabled is False and project.id == caller_project_id:
        raise OwnProject(f"{project_id} is the project of the key that was sent.")
    try:
        ProjectRepository(session).change(project, wanted.model_dump(exclude_unset=True))
    except NameTaken as error:
        raise ProjectNameTaken(f"{error}.") from error
    return project
