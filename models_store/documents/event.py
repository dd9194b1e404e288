"""What happens in a job, as it happens: stored, streamed over SSE, resumable by `seq`."""

from enum import StrEnum
from typing import Any

from models_store.documents.base import Document
from models_store.documents.timestamp import Timestamp


class EventType(StrEnum):
    STATE = "state"  # {state, attempt, error?}
    STAGE = "stage"  # {name, state: running|done|skipped|failed, message?}
    PROGRESS = "progress"  # {stage, progress: 0..1, eta_s?}
    LOG = "log"  # {level, message}
    METRIC = "metric"  # {stage, name: value, ...}, such as one finetuning epoch


class Event(Document):
    seq: int
    type: EventType
    at: Timestamp
    attempt: int
    data: dict[str, Any]


class ErrorClass(StrEnum):
    USER = "user"
    INFRASTRUCTURE = "infrastructure"
    RESOURCES = "resources"


class JobError(Document):
    """Why a job failed: whose fault, at which stage, and what to do."""

    code: str
    error_class: ErrorClass
    message: str
    hint: str = ""
    stage: str | None = None


STAGES = (
    *("baseline", "iterate", "estimate", "regularise", "prune", "recover"),
    *("finetune", "evaluate", "export", "measure", "report"),
)
ESTIMATE_STAGES = ("latency", "sensitivity", "curve", "forecast", "report")
SWEEP_STAGES = ("points", "front")
MASK_STAGES = ("score",)
