"""Where a job stands: its state, and its stages one by one."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from models_store.documents.base import Document
from models_store.documents.timestamp import Timestamp


class JobState(StrEnum):
    """`queued -> running -> succeeded | failed | cancelled`; `cancelling` may still end `succeeded` or `failed`."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class StageState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StageChange(Document):
    """Data of a `stage` event."""

    name: str
    state: Literal[StageState.RUNNING, StageState.DONE, StageState.SKIPPED, StageState.FAILED]
    message: str | None = None


class StageProgress(Document):
    """Data of a `progress` event."""

    stage: str
    progress: float = Field(ge=0, le=1)
    eta_s: float | None = Field(default=None, ge=0)


class Stage(Document):
    """One stage of the attempt in progress; a new attempt starts with all of them `pending`."""

    name: str
    state: StageState = StageState.PENDING
    progress: float = Field(default=0.0, ge=0, le=1)
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    eta_s: float | None = Field(default=None, description="Seconds left, as the stage itself expects.")
    message: str | None = None
