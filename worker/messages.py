"""What a child says while it works: one JSON object per line, validated by the worker that hears it."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from models_store.documents.base import Document
from models_store.documents.event import EventType
from models_store.documents.job import StageChange, StageProgress

# Plain files that a child may write: what stages leave for those after them, and artifacts.
_StatePath = Annotated[str, Field(pattern=r"^(state|out)/[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Message(Document):
    model_config = ConfigDict(allow_inf_nan=False)

    def event(self) -> tuple[EventType, dict[str, Any]]:
        """As it is kept among the job's events."""
        data = self.model_dump(mode="json", exclude_none=True)
        return EventType(data.pop("type")), data


class StageMessage(StageChange, _Message):
    type: Literal["stage"] = "stage"


class ProgressMessage(StageProgress, _Message):
    type: Literal["progress"] = "progress"


class LogMessage(_Message):
    type: Literal["log"] = "log"
    level: Literal["info", "warning", "error"] = "info"
    message: str = Field(max_length=10_000)


class MetricMessage(_Message):
    """Figures of one step, such as a finetuning epoch."""

    type: Literal["metric"] = "metric"
    stage: str
    values: dict[Annotated[str, Field(max_length=100)], int | float] = Field(max_length=50)

    def event(self) -> tuple[EventType, dict[str, Any]]:
        return EventType.METRIC, {"stage": self.stage, **self.values}


class CheckpointMessage(Document):
    """From these files, by path in the work folder, and digest, another attempt can go on. No event: it is kept."""

    type: Literal["checkpoint"] = "checkpoint"
    files: dict[_StatePath, _Sha256] = Field(max_length=100)


Event = StageMessage | ProgressMessage | LogMessage | MetricMessage
Message = Annotated[Event | CheckpointMessage, Field(discriminator="type")]
MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)
