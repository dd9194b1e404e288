"""What goes in and out of /v1/pipelines."""

from typing import Annotated, Literal, Self

from fastapi.openapi.models import Example
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.names import Name
from app.pages import Listed, Page
from models_store.documents.methods import refuse
from models_store.documents.pipeline import Gate, GateVerdict, JobTemplate, RunState, Sha, Text, Trigger
from models_store.documents.timestamp import Timestamp
from models_store.hopeless_gates import out_of_reach
from models_store.tables import Pipeline, PipelineRun, WebhookEndpoint
from models_store.targets import MAX_URL_CHARACTERS

PUBLIC_HOSTS = {"github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4"}
DAY_S = 24 * 3600
Branch = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Token = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[\x21-\x7e]+$")]
BaseUrl = Annotated[str, Field(max_length=MAX_URL_CHARACTERS, pattern=r"^https?://[\x21-\x7e]+$")]

EXAMPLES: dict[str, Example] = {
    "gated": {
        "summary": "Prune to half, and let it pass if it is small enough",
        "value": {
            "name": "nightly",
            "model_name": "net",
            "job": {"budget": {"macs_ratio": 0.5}},
            "gates": [{"metric": "macs_ratio", "max": 0.55}, {"metric": "speedup", "min": 1.0}],
        },
    }
}


class CommitStatus(BaseModel):
    """Where the state of a run is shown on the commit that started it."""

    model_config = ConfigDict(extra="forbid")

    host: Literal["github", "gitlab"]
    base_url: BaseUrl | None = Field(
        default=None, description="Of the API; api.github.com or gitlab.com if left out.", examples=[None]
    )
    repository: Text = Field(
        default="", description="owner/name, or a GitLab project's path or number; the event's own if left out."
    )
    context: Text = Field(default="", description="The status's name; `espalier/` and the pipeline's name if left out.")
    token: Token = Field(description="May set commit statuses. Never shown again.")


class NewPipeline(BaseModel):
    """A job to run again and again."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    job: JobTemplate = Field(description="As for POST /v1/jobs; `model_id` may be left to the runs.")
    model_name: Name | None = Field(
        default=None, description="Runs that name no model take the newest `ready` one of this name."
    )
    gates: tuple[Gate, ...] = Field(default=(), max_length=50)
    branches: tuple[Branch, ...] = Field(
        default=(), max_length=50, description="Patterns such as `main` or `release/*`; events of others start nothing."
    )
    commit_status: CommitStatus | None = None
    report_link_s: int = Field(
        default=0,
        ge=0,
        le=30 * DAY_S,
        description="How long the link to the report in commit statuses, summaries and webhooks opens for whoever can "
        "see it, where the service asks for keys. 0: it asks for a key, too.",
    )

    @model_validator(mode="after")
    def _one_way_to_a_model(self) -> Self:
        if self.model_name is not None and self.job.model_id is not None:
            raise ValueError("name the model by model_name or by job.model_id, not by both")
        return self

    @model_validator(mode="after")
    def _gates_can_be_passed(self) -> Self:
        refuse(out_of_reach(self.gates, self.job), "hopeless_gate")
        return self


class CommitStatusView(BaseModel):
    """The same without the token."""

    host: str
    base_url: str
    repository: str
    context: str


class HookPaths(BaseModel):
    """Where events are sent to start runs."""

    github: str
    gitlab: str
    generic: str


class PipelineView(Listed):
    """A pipeline; the secret of its hooks was shown when it was made."""

    id: str = Field(examples=["pip_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    name: str
    job: dict[str, object] = Field(
        description="The template, with every default but methods that are left to the runs."
    )
    model_name: str | None
    gates: tuple[Gate, ...]
    branches: tuple[str, ...]
    commit_status: CommitStatusView | None
    report_link_s: int
    hooks: HookPaths
    created_at: Timestamp

    @classmethod
    def of(cls, pipeline: Pipeline, host: WebhookEndpoint | None) -> Self:
        return cls.model_validate(cls.fields_of(pipeline, host))

    @staticmethod
    def fields_of(pipeline: Pipeline, host: WebhookEndpoint | None) -> dict[str, object]:
        status = {"repository": pipeline.status_repository, "context": pipeline.status_context}
        return {
            "id": pipeline.id,
            "name": pipeline.name,
            "job": pipeline.template,
            "model_name": pipeline.model_name,
            "gates": pipeline.gates,
            "branches": pipeline.branches,
            "commit_status": {"host": host.kind, "base_url": host.url, **status} if host else None,
            "report_link_s": pipeline.report_link_s,
            "hooks": {source: f"/v1/hooks/{source}/{pipeline.id}" for source in ("github", "gitlab", "generic")},
            "created_at": pipeline.created_at,
        }


class PipelineWithSecret(PipelineView):
    """A new pipeline, with the secret that its inbound events are signed with. It is not shown again."""

    secret: str = Field(description="Secret on GitHub, signing token on GitLab, key of a Standard Webhooks library.")

    @classmethod
    def of(cls, pipeline: Pipeline, host: WebhookEndpoint | None) -> Self:
        return cls.model_validate({**cls.fields_of(pipeline, host), "secret": pipeline.secret})


class PipelinePage(Page[PipelineView]):
    """Pipelines, newest first."""


class NewRun(BaseModel):
    """What a run brings along."""

    model_config = ConfigDict(extra="forbid")

    model_id: str | None = Field(default=None, pattern=r"^mdl_[0-9a-f]{32}$")
    dataset_id: str | None = Field(default=None, pattern=r"^dst_[0-9a-f]{32}$")
    repository: Text = ""
    ref: Text = ""
    sha: Sha | None = None


class RunLinks(BaseModel):
    """Where the run's parts are found."""

    self: str
    job: str | None
    junit: str
    summary: str


class RunView(Listed):
    """A run, and what its gates said."""

    id: str = Field(examples=["run_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    pipeline_id: str
    job_id: str | None = Field(description="Null once the job has been deleted.")
    state: RunState
    reason: str = Field(description="One line that says why, once it has ended.")
    gates: tuple[GateVerdict, ...] = Field(description="Once it has ended with a report.")
    trigger: Trigger
    created_at: Timestamp
    finished_at: Timestamp | None
    links: RunLinks

    @classmethod
    def of(cls, run: PipelineRun) -> Self:
        path = f"/v1/pipelines/{run.pipeline_id}/runs/{run.id}"
        same = ("id", "pipeline_id", "job_id", "state", "reason", "trigger", "created_at", "finished_at")
        links = {
            "self": path,
            "job": f"/v1/jobs/{run.job_id}" if run.job_id else None,
            "junit": f"{path}/junit.xml",
            "summary": f"{path}/summary.md",
        }
        return cls.model_validate({name: getattr(run, name) for name in same} | {"gates": run.verdicts, "links": links})


class RunPage(Page[RunView]):
    """Runs, newest first."""
