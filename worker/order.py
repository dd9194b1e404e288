"""What a worker asks of its child and what the child answers: documents in the work folder."""

from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from models_store.documents.base import Document
from models_store.documents.event import JobError
from models_store.documents.inspection import DatasetInspection, ModelInspection, Rejection
from models_store.documents.job_spec import AcceptedJob, JobKind
from models_store.documents.mask_part import MaskPart, MaskScores
from models_store.documents.sweep_report import SweepPoint
from worker.sandbox import Limits, Tier

CANONICAL_MODEL = "model.onnx"
"""The artifact of an inspection that turned weights into ONNX."""

EXIT_STOPPED = 75
"""Exit code of a child that stopped because it was told to, with no result and no failure (EX_TEMPFAIL)."""

EXIT_SPREAD = 76
"""Exit code of a child that left `parts.json`: the job goes on when the parts named there have ended."""

EXIT_LOST = 77
"""Exit code of one of several processes of a child that another one of them has left alone; that one's end says why."""


class InputFile(Document):
    """A model or a dataset, fetched into the work folder."""

    path: Path
    name: str
    format: str
    sha256: str
    size_bytes: int
    details: dict[str, Any]


class Order(Document):
    """One attempt at one job, complete: the child needs nothing else."""

    job_id: str
    attempt: int
    kind: JobKind
    spec: AcceptedJob | None
    model: InputFile | None
    dataset: InputFile | None
    device: Literal["cpu", "cuda"]
    threads: int
    checkpoint_s: float
    sandbox: Tier
    limits: Limits
    parent_pid: int
    events_fd: int
    points: tuple[SweepPoint, ...] = ()
    """Of a sweep, all of them ended."""
    part: MaskPart | None = None
    """Of a job of kind `masks`: what it is to score, for the job whose spec and state it has."""
    mask_parts: tuple[MaskPart, ...] = ()
    """Over which the job's random masks were spread in earlier attempts."""
    mask_scores: tuple[MaskScores, ...] = ()
    """Of those parts that succeeded."""
    workers: int = 1
    """That are at work now, this one included."""
    processes: int = 1
    """That carry the order out together; with more than one a launcher starts them."""
    spread_s: float = 0.0
    """What would take longer is spread over the workers."""


class InspectionResult(Document):
    """The answer to an inspect job: what was found, or why the upload is refused."""

    found: ModelInspection | DatasetInspection | None = None
    rejection: Rejection | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "InspectionResult":
        if (self.found is None) == (self.rejection is None):
            raise ValueError("an inspection either finds something or refuses it")
        return self


class Failure(Document):
    """Why an attempt failed, and whether another one could end better."""

    error: JobError
    retry: bool
