"""Projects: whom everything belongs to."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models_store.errors import NameTaken
from models_store.identifiers import new_id
from models_store.tables import Project

DEFAULT_PROJECT = f"prj_{0:032x}"
"""Owns everything while the service asks for no keys."""


class ProjectRepository:
    """All SQL on projects; in a session of one project it knows of that one only. Never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, name: str) -> Project:
        """A new project, without keys. Raises NameTaken."""
        project = Project(id=new_id("prj"), name=name)
        self._put(project)
        return project

    def get(self, id: str) -> Project | None:
        return self._session.get(Project, id)

    def named(self, name: str) -> Project | None:
        return self._session.scalar(select(Project).where(Project.name == name))

    def list(self, after: str | None = None, limit: int = 50) -> Sequence[Project]:
        """Newest first; `after` is the id of the last row of the page before."""
        query = select(Project).order_by(Project.id.desc()).limit(limit)
        return self._session.scalars(query.where(Project.id < after) if after is not None else query).all()

    def change(self, project: Project, columns: Mapping[str, object]) -> None:
        """New values of columns by name; of the limits, None means what holds for all. Raises NameTaken."""
        for name, value in columns.items():
            if value is not None or name.endswith("_limit"):
                setattr(project, name, value)
        self._put(project)

    def _put(self, project: Project) -> None:
        name = project.name
        try:
            with self._session.begin_nested():
                self._session.add(project)
                self._session.flush()
        except IntegrityError as error:
            raise NameTaken(f"there is a project named {name}") from error
