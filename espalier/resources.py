"""What the service says about uploads and jobs. Fields that this version does not know are ignored."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from models_store.documents.access import Scope
from models_store.documents.event import JobError
from models_store.documents.inspection import LayerInfo, Rejection
from models_store.documents.job import JobState, Stage
from models_store.documents.pipeline import Gate, GateVerdict, RunState
from models_store.documents.report import Artifact
from models_store.documents.timestamp import Timestamp
from models_store.documents.webhook import DeliveryState, Happening

Row = TypeVar("Row", bound="Resource")


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
    created_at: Timestamp


class Refusal(Resource):
    """Why the service did not take a whole file."""

    code: str
    detail: str
    hint: str = ""


class UploadInPieces(Resource):
    """A file on its way to the service."""

    id: str
    state: str
    offset: int
    size_bytes: int
    model_id: str | None = None
    dataset_id: str | None = None
    refusal: Refusal | None = None


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
    created_at: Timestamp
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None


class ModelGraph(Resource):
    """The layers of a model, as the pruning engine sees them."""

    model_id: str
    params: int
    macs: int
    layers: tuple[LayerInfo, ...]


class Method(Resource):
    """What a job can be told to prune by."""

    kind: str
    name: str
    title: str
    summary: str
    paper: str
    data: str
    options: dict[str, Any]


class Methods(Resource):
    """All of them."""

    items: tuple[Method, ...]


class Link(Resource):
    """Opens one file of a job without a key, until it expires."""

    url: str
    expires_at: Timestamp


class Webhook(Resource):
    """An endpoint that is told what happens; its secret is there only when it was just made."""

    id: str
    url: str
    events: tuple[Happening, ...]
    description: str
    enabled: bool
    disabled_reason: str | None = None
    secret: str | None = None
    created_at: Timestamp


class Delivery(Resource):
    """One message to one endpoint."""

    id: str
    message_id: str
    event: Happening
    state: DeliveryState
    attempts: int
    next_attempt_at: Timestamp | None = None
    created_at: Timestamp
    delivered_at: Timestamp | None = None


class Attempt(Resource):
    """One try at a delivery."""

    number: int
    at: Timestamp
    took_ms: int
    status: int | None = None
    error: str | None = None
    answer: str | None = None


class LoggedDelivery(Delivery):
    """A delivery with its body and every attempt at it."""

    body: str
    log: tuple[Attempt, ...]


class Pipeline(Resource):
    """A saved job with gates; its secret is there only when it was just made."""

    id: str
    name: str
    gates: tuple[Gate, ...]
    hooks: dict[str, str]
    secret: str | None = None
    created_at: Timestamp


class Run(Resource):
    """A run of a pipeline, and what its gates said."""

    id: str
    pipeline_id: str
    job_id: str | None = None
    state: RunState
    reason: str
    gates: tuple[GateVerdict, ...]
    created_at: Timestamp
    finished_at: Timestamp | None = None


class ApiKey(Resource):
    """A key of the project; its text is there only when it was just made or rotated."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: Timestamp
    expires_at: Timestamp | None = None
    last_used_at: Timestamp | None = None
    revoked_at: Timestamp | None = None
    key: str | None = None


class Project(Resource):
    """Whom things belong to. A limit of None: what the service's settings say."""

    id: str
    name: str
    enabled: bool
    stored_bytes_limit: int | None = None
    unfinished_jobs_limit: int | None = None
    job_minutes_limit: int | None = None
    created_at: Timestamp


class Amount(Resource):
    """Of one thing; a limit of None: as much as there is."""

    used: float
    limit: int | None = None


class Usage(Resource):
    """What a project uses, and what it may."""

    project_id: str
    stored_bytes: Amount
    unfinished_jobs: Amount
    unfinished_inspections: Amount | None = None  # None: by a service of before there was a limit
    job_minutes: Amount
    month_ends_at: Timestamp
    requests_per_minute: int | None = None


class Change(Resource):
    """An entry of the audit log."""

    id: str
    at: Timestamp
    key_id: str | None = None
    action: str
    resource: str
    address: str


class Check(Resource):
    """One thing that the service needs."""

    name: str
    ok: bool
    message: str = ""


class Readiness(Resource):
    """Whether the service has what it needs, and whether it asks for keys."""

    status: str
    auth: str
    checks: tuple[Check, ...]


class Listing(Resource, Generic[Row]):
    """A page of a list."""

    items: tuple[Row, ...]
    next: str | None = None


class Artifacts(Resource):
    """The files that a job made."""

    items: tuple[Artifact, ...]
