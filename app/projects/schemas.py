"""What goes in and out of /v1/projects."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from app.names import MAX_LENGTH
from app.pages import Listed, Page
from models_store.documents.timestamp import Timestamp
from models_store.tables import Project

ProjectName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$", description="No other project has it."),
]


class NewProject(BaseModel):
    """Somebody who shares nothing with others."""

    model_config = ConfigDict(extra="forbid")

    name: ProjectName


BytesLimit = Annotated[int | None, Field(ge=0, le=2**53, description="Null: what the settings say of all projects.")]
CountLimit = Annotated[int | None, Field(ge=0, lt=2**31, description="Null: what the settings say of all projects.")]


class ProjectChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: ProjectName | None = None
    enabled: bool | None = Field(default=None, description="The keys of a disabled project are refused.")
    stored_bytes_limit: BytesLimit = None
    unfinished_jobs_limit: CountLimit = None
    job_minutes_limit: CountLimit = None


class ProjectView(Listed):
    """A project."""

    id: str = Field(examples=["prj_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    name: str
    enabled: bool
    stored_bytes_limit: int | None
    unfinished_jobs_limit: int | None
    job_minutes_limit: int | None
    created_at: Timestamp

    @classmethod
    def of(cls, project: Project) -> Self:
        return cls.model_validate(project, from_attributes=True)


class ProjectPage(Page[ProjectView]):
    """Projects, newest first."""
