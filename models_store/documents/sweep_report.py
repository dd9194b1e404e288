"""What a sweep found: a pruned model per budget, and which of them no other one beats."""

from typing import Annotated, Literal

from pydantic import Field

from models_store.documents.base import Document
from models_store.documents.event import JobError
from models_store.documents.job import JobState
from models_store.documents.job_spec import Budget, SweepSpec
from models_store.documents.recorded import RECORDED
from models_store.documents.report import Accuracy, Artifact, BudgetVerdict, Cost, LatencyRow, Machine


class Measured(Document):
    """What the job of a point measured."""

    original: Cost
    pruned: Cost
    original_accuracy: Accuracy
    accuracy: Accuracy
    latency: LatencyRow | None = Field(description="At the budget's batch size and threads, or the first one measured.")
    budget: tuple[BudgetVerdict, ...]

    @property
    def macs_ratio(self) -> float:
        return self.pruned.macs / max(self.original.macs, 1)

    @property
    def unmet(self) -> tuple[BudgetVerdict, ...]:
        """The lines of the budget that the model does not keep."""
        return tuple(line for line in self.budget if line.verdict != "met")


class SweepPoint(Document):
    """One budget: the prune job that it became, and its model."""

    job_id: str
    budget: Budget
    state: JobState
    error: JobError | None = None
    measured: Measured | None = Field(default=None, description="None where the job did not succeed.")
    model: str | None = Field(default=None, description="Path of the pruned model, to be fetched from this service.")
    model_sha256: str | None = None
    model_name: str | None = Field(default=None, description="Of the original.")
    original_sha256: str | None = None
    dataset_sha256: str | None = None


class SweepReport(Document):
    version: Literal[1] = 1
    kind: Literal["sweep"] = "sweep"
    job_id: str
    attempt: int
    spec: Annotated[SweepSpec, RECORDED]
    model_name: str
    original_sha256: str
    dataset_sha256: str | None
    points: tuple[SweepPoint, ...]
    front_macs: tuple[int, ...] = Field(
        description="Points, by number from 0, that no other one beats in accuracy without more MACs; the fewest first."
    )
    front_latency: tuple[int, ...] = Field(description="The same with latency, the fastest first.")
    warnings: tuple[str, ...]
    machine: Machine
    artifacts: tuple[Artifact, ...] = Field(description="The files beside this report, with their digests.")
    stage_seconds: dict[str, float]
