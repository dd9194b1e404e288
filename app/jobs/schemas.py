"""What goes in and out of /v1/jobs; the request is the document of its kind itself."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from fastapi.openapi.models import Example
from pydantic import BaseModel, ConfigDict, Field

from app.pages import Listed, Page
from models_store.documents.event import JobError
from models_store.documents.job import JobState, Stage
from models_store.documents.job_spec import JobKind
from models_store.documents.report import Artifact
from models_store.documents.timestamp import Timestamp
from models_store.tables import Job, JobArtifact

MODEL = "mdl_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"
DATASET = "dst_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"

SPEC_EXAMPLES: dict[str, Example] = {
    "data_free": {
        "summary": "Prune to half of the MACs, without data",
        "description": "Put in the id of your model. No training, no accuracy: cost, latency and proof only.",
        "value": {"model_id": MODEL, "budget": {"macs_ratio": 0.5}},
    },
    "finetuned": {
        "summary": "Prune to 40 % of the MACs and finetune",
        "description": "Put in the ids of your model and dataset, and the normalisation your model was trained with.",
        "value": {
            "model_id": MODEL,
            "dataset_id": DATASET,
            "budget": {"macs_ratio": 0.4},
            "data": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            "finetuning": {"epochs": 5, "learning_rate": 0.01, "crop_padding": 4, "horizontal_flip": True},
            "label": "first try",
        },
    },
    "estimate": {
        "summary": "Estimate what pruning would cost and gain",
        "description": "Put in the id of your model; with that of a dataset the curve has accuracies, too.",
        "value": {"kind": "estimate", "model_id": MODEL},
    },
    "sweep": {
        "summary": "Prune to several budgets and see the front of accuracy against MACs and latency",
        "description": "Put in the ids of your model and dataset. Each budget becomes a prune job with a model of its "
        "own; `GET /v1/jobs?parent_id=` lists them.",
        "value": {
            "kind": "sweep",
            "model_id": MODEL,
            "dataset_id": DATASET,
            "budgets": [{"macs_ratio": 0.7}, {"macs_ratio": 0.5}, {"macs_ratio": 0.3}],
            "finetuning": {"epochs": 2},
        },
    },
}


class Retry(BaseModel):
    """How to try a job again."""

    model_config = ConfigDict(extra="forbid")

    begin: Literal["checkpoint", "start"] = Field(
        default="checkpoint",
        description="`checkpoint`: after the last stage, or the last step of a training, that was kept (a week, as a "
        "rule). `start`: from the first stage.",
    )


class JobLinks(BaseModel):
    """Where the job's parts are found."""

    self: str
    events: str
    logs: str
    artifacts: str
    report: str | None = Field(description="Once the job has succeeded.")
    report_html: str | None = Field(description="The same for people, once the job has succeeded.")

    @classmethod
    def of(cls, job: Job) -> Self:
        path = f"/v1/jobs/{job.id}"
        reported = job.state is JobState.SUCCEEDED and job.kind != JobKind.INSPECT
        return cls.model_validate(
            {
                "self": path,
                "events": f"{path}/events",
                "logs": f"{path}/logs",
                "artifacts": f"{path}/artifacts",
                "report": f"{path}/report" if reported else None,
                "report_html": f"{path}/report.html" if reported else None,
            }
        )


class JobView(Listed):
    """A job as its owner sees it."""

    id: str = Field(examples=["job_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    kind: str
    label: str | None
    model_id: str | None = Field(description="Null once the model has been deleted.")
    dataset_id: str | None = Field(description="Null for a data-free job, and once the dataset has been deleted.")
    parent_id: str | None = Field(description="The sweep that this job is a point of.")
    spec: dict[str, Any] = Field(description="As it was asked for.")
    state: JobState
    progress: float = Field(description="Of the whole job, 0..1.")
    stages: tuple[Stage, ...]
    attempt: int = Field(description="How many times a worker has begun the job.")
    error: JobError | None = Field(description="Once `failed`: whose fault, and what to do.")
    created_at: Timestamp
    started_at: Timestamp | None = Field(description="Of the attempt in progress.")
    finished_at: Timestamp | None
    links: JobLinks

    @classmethod
    def of(cls, job: Job) -> Self:
        columns = {name: getattr(job, name) for name in cls.model_fields if name != "links"}
        return cls.model_validate({**columns, "links": JobLinks.of(job)})


class JobPage(Page[JobView]):
    """Jobs, newest first."""


class ArtifactList(BaseModel):
    """The files that a job made; empty until it has succeeded."""

    items: tuple[Artifact, ...]

    @classmethod
    def of(cls, artifacts: Sequence[JobArtifact]) -> Self:
        return cls(items=tuple(Artifact.model_validate(artifact, from_attributes=True) for artifact in artifacts))
