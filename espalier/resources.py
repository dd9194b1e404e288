"""What the service says about uploads and jobs. Fields that this version does not know are ignored."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from models_store.documents.event import JobError
from models_store.documents.inspection import Rejection
from models_store.documents.job import JobState, Stage
from models_store.documents.report import Artifact


class Resource(BaseModel):
    """A JSON object of the service, immutable."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Upload(Resource):
    """A model or a dataset."""

    id: str
    name: str
    format: str
    state: str
    sha256: str
    size_bytes: int
    inspection: dict[str, Any] | None = None
    rejection: Rejection | None = None
    created_at: datetime


class Job(Resource):
    """One piece of work."""

    id: str
    kind: str
    state: JobState
    label: str | None = None
    model_id: str | None = None
    dataset_id: str | None = None
    progress: float = 0.0
    stages: tuple[Stage, ...] = ()
    error: JobError | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Artifacts(Resource):
    """The files that a job made."""

    items: tuple[Artifact, ...]
