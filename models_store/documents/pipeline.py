"""Pipelines: a job to run again and again, and the gates that its report has to pass."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from models_store.documents.base import Document
from models_store.documents.job_spec import JobSpec, Pruning

Sha = Annotated[str, Field(pattern="^([0-9a-f]{40}|[0-9a-f]{64})$", description="The commit, in full.")]
Text = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]

Metric = Literal[
    "accuracy_drop",
    "top1",
    "changed_labels",
    "output_error",
    "macs_ratio",
    "params_ratio",
    "size_ratio",
    "size_bytes",
    "peak_memory_ratio",
    "peak_memory_bytes",
    "speedup",
    "latency_ms",
    "unmet_budgets",
]


class Gate(Document):
    """One bound on one number of the report."""

    metric: Metric = Field(
        description="`accuracy_drop`: top-1 of the original minus that of the pruned model, in points of 0..1. "
        "`top1`: of the pruned model. `output_error`: against the original's outputs, where images have no labels. "
        "`macs_ratio`, `params_ratio`, `size_ratio`, `peak_memory_ratio`: pruned / original. "
        "`speedup`, `latency_ms` (median of the pruned model): at `batch_size`. "
        "`unmet_budgets`: how many lines of the job's budget were not met."
    )
    max: FiniteFloat | None = None
    min: FiniteFloat | None = None
    batch_size: int | None = Field(
        default=None, ge=1, description="speedup and latency_ms only; the first one measured if left out."
    )

    @model_validator(mode="after")
    def _has_a_bound(self) -> "Gate":
        if self.max is None and self.min is None:
            raise ValueError("a gate needs `max`, `min` or both")
        if self.batch_size is not None and self.metric not in ("speedup", "latency_ms"):
            raise ValueError(f"batch_size says nothing about {self.metric}")
        return self


class GateVerdict(Document):
    """What a gate said about a report."""

    gate: Gate
    passed: bool
    value: float | None = Field(description="Null where the report does not have it.")
    reason: str


class JobTemplate(JobSpec):
    """A job but for its model, which every run brings or finds. A run may bring a dataset, too, so that what methods
    are best is left to it."""

    model_id: str | None = Field(default=None, pattern=r"^mdl_[0-9a-f]{32}$")  # type: ignore[assignment]

    def _completed_pruning(self) -> Pruning:
        without = self.dataset_id is None
        try:
            self._completed_for(images=not without)
        except ValidationError:
            if not without:
                raise
            self._completed_for(images=True)  # options that no run could have are refused now
        return self.pruning


class RunState(StrEnum):
    """`running` until the job has ended; `errored` where it ended without a report."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    ERRORED = "errored"


class Trigger(Document):
    """What started a run."""

    source: Literal["api", "github", "gitlab", "generic"] = "api"
    event: Text = Field(default="", description="As the sender calls it, such as `push`.")
    repository: Text = Field(default="", description="owner/name on GitHub, path or number of the project on GitLab.")
    ref: Text = ""
    sha: Sha | None = None
