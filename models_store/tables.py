"""The tables. Rows are plain: no lazy loading, no behaviour beyond what a column can say."""

import secrets
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, Enum, ForeignKey, Index, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from models_store.database_time import UtcDateTime, database_now
from models_store.documents.event import EventType
from models_store.documents.job import JobState
from models_store.documents.pipeline import RunState
from models_store.documents.webhook import DeliveryState

ID_LENGTH = 36
SHA256_LENGTH = 64


class InputState(StrEnum):
    """Of a model or a dataset. Its inspection is a job like any other; how that ends decides."""

    INSPECTING = "inspecting"
    READY = "ready"
    REJECTED = "rejected"


def _words(words: type[StrEnum], name: str) -> Enum:
    """A column of fixed words: text with a check, which both databases migrate alike."""
    return Enum(
        words,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    # JSON and not JSONB: what strangers' files contain is kept as it is, NUL characters in names included.
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: JSON, list[dict[str, Any]]: JSON}  # noqa: RUF012


class Project(Base):
    """Whom things belong to: its keys see these things and no others."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    enabled: Mapped[bool] = mapped_column(default=True)  # its keys are refused where not
    stored_bytes_limit: Mapped[int | None] = mapped_column(BigInteger)  # these three, where they are its own
    unfinished_jobs_limit: Mapped[int | None]
    job_minutes_limit: Mapped[int | None]
    deleted_jobs_s: Mapped[float] = mapped_column(default=0.0)  # used in one month by jobs that ended in it
    deleted_jobs_at: Mapped[datetime | None]  # when the last of them was deleted: within that month
    link_secret: Mapped[str] = mapped_column(String(64), default=partial(secrets.token_hex, 32))  # signs shared links
    created_at: Mapped[datetime] = mapped_column(default=database_now())


class Owned:
    """What belongs to a project by itself. Other tables are part of such a one: see `confinement`."""

    project_id: Mapped[str] = mapped_column(String(ID_LENGTH), ForeignKey("projects.id"))


class ApiKey(Owned, Base):
    """What a program shows to be let in; its secret is known to its holder only."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    scopes: Mapped[list[str]] = mapped_column(JSON)  # Scope words
    secret_hash: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    previous_hash: Mapped[str | None] = mapped_column(String(SHA256_LENGTH))  # from before the last rotation
    previous_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=database_now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Owned, Base):
    """A change that somebody made; never changed itself."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    key_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))  # no foreign key: it says what was so then
    action: Mapped[str] = mapped_column(String(64))  # the operation's name in the OpenAPI document
    resource: Mapped[str] = mapped_column(String(300))  # its path
    address: Mapped[str] = mapped_column(String(100))
    at: Mapped[datetime] = mapped_column(default=database_now())


class Input(Owned):
    """What a model and a dataset have in common: an upload, and what its inspection found."""

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    format: Mapped[str] = mapped_column(String(32))
    state: Mapped[InputState] = mapped_column(_words(InputState, "state"), default=InputState.INSPECTING)
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    blob_key: Mapped[str] = mapped_column(String(200))  # the upload as it came
    details: Mapped[dict[str, Any]]  # what the uploader said about it, such as a torchvision architecture
    inspection: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    rejection: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=database_now())


class Model(Input, Base):
    __tablename__ = "models"
    __table_args__ = (Index(None, "project_id", "id"),)

    onnx_key: Mapped[str | None] = mapped_column(String(200))  # the canonical ONNX file, once ready


class Dataset(Input, Base):
    __tablename__ = "datasets"
    __table_args__ = (Index(None, "project_id", "id"),)


class Job(Owned, Base):
    """One piece of work, and the whole truth about it: the broker only rings."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(None, "state", "priority", "id"),  # the claim
        Index(None, "lease_expires_at"),  # the reaper
        Index(None, "project_id", "id"),  # lists
        CheckConstraint("(state IN ('running', 'cancelling')) = (lease_expires_at IS NOT NULL)", name="lease"),
    )

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # a JobKind; no check, so that a new kind needs no migration
    label: Mapped[str | None] = mapped_column(String(200))
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"), index=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"), index=True)
    # The sweep that this job is a point of; no foreign key, so that either may be removed before the other.
    parent_id: Mapped[str | None] = mapped_column(String(ID_LENGTH), index=True)
    spec: Mapped[dict[str, Any]]  # of its kind, as it was asked for
    deadline_s: Mapped[int]
    priority: Mapped[int]  # lower is claimed earlier

    state: Mapped[JobState] = mapped_column(_words(JobState, "state"), default=JobState.QUEUED)
    stages: Mapped[list[dict[str, Any]]]  # Stage documents
    progress: Mapped[float] = mapped_column(default=0.0)  # 0..1 over all stages
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # a JobError
    created_at: Mapped[datetime] = mapped_column(default=database_now())
    started_at: Mapped[datetime | None]  # of the attempt in progress
    finished_at: Mapped[datetime | None]
    used_s: Mapped[float] = mapped_column(default=0.0)  # by the attempts that have ended

    attempt: Mapped[int] = mapped_column(default=0)  # counts claims and never goes back: the fencing number
    failed_attempts: Mapped[int] = mapped_column(default=0)  # those of them that count against the limit
    claimable_at: Mapped[datetime] = mapped_column(default=database_now())  # later than now: waiting before a retry
    worker: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None]
    event_seq: Mapped[int] = mapped_column(default=0)  # of the last event


class JobEvent(Base):
    """What happened, numbered from 1 without gaps."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[EventType] = mapped_column(_words(EventType, "type"))
    at: Mapped[datetime]
    attempt: Mapped[int]
    data: Mapped[dict[str, Any]]


class JobReport(Base):
    """The report of a job that succeeded: apart from its job, because it is large and lists do not show it."""

    __tablename__ = "job_reports"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    document: Mapped[dict[str, Any]]


class JobCheckpoint(Base):
    """Where another attempt can go on: the files that an unfinished job has so far, all of them or none."""

    __tablename__ = "job_checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int]  # that left it
    files: Mapped[dict[str, Any]]  # path in the work folder: blob key in the job's own scope


class JobArtifact(Base):
    """A file that a job made; visible from the commit that ends the job."""

    __tablename__ = "job_artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    media_type: Mapped[str] = mapped_column(String(100))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(SHA256_LENGTH))
    blob_key: Mapped[str] = mapped_column(String(200))


class IdempotencyKey(Owned, Base):
    """A request that creates something, by the key that its sender chose: sent twice, it happens once."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(String(ID_LENGTH), ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(SHA256_LENGTH))  # of method, path and body
    token: Mapped[str] = mapped_column(String(32))  # of the request that may complete it
    locked_until: Mapped[datetime]  # until then it is in flight, unless answered
    expires_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[int | None]  # of the answer, once there is one
    location: Mapped[str | None] = mapped_column(String(200))
    body: Mapped[str | None] = mapped_column(Text)


class WebhookEndpoint(Owned, Base):
    """Where somebody wants to be told what happens."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index(None, "project_id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    url: Mapped[str] = mapped_column(String(2000))
    happenings: Mapped[list[str]] = mapped_column(JSON)  # Happening words; empty: all
    description: Mapped[str] = mapped_column(String(200))
    secret: Mapped[str] = mapped_column(String(300))  # whsec_… or a host's token: sending needs it in clear
    kind: Mapped[str] = mapped_column(String(16), default="webhook")  # or github, gitlab: told a commit's status
    enabled: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=database_now())


class WebhookDelivery(Base):
    """One message to one endpoint: written in the transaction of what it tells, sent afterwards."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (Index(None, "state", "due_at"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), index=True)
    message_id: Mapped[str] = mapped_column(String(ID_LENGTH))  # the receiver's idempotency key
    happening: Mapped[str] = mapped_column(String(32))
    body: Mapped[str] = mapped_column(Text)  # as it is signed
    url: Mapped[str | None] = mapped_column(String(2000))  # where it is not the endpoint's own
    state: Mapped[DeliveryState] = mapped_column(_words(DeliveryState, "state"), default=DeliveryState.PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime] = mapped_column(default=database_now())  # of the next attempt; the end of one's lease
    created_at: Mapped[datetime] = mapped_column(default=database_now())
    delivered_at: Mapped[datetime | None]


class WebhookAttempt(Base):
    """One try at a delivery, and what came of it."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=database_now())
    took_ms: Mapped[int]
    status: Mapped[int | None]  # of the answer, if there was one
    error: Mapped[str | None] = mapped_column(String(500))
    answer: Mapped[str | None] = mapped_column(Text)  # the beginning of it


class Pipeline(Owned, Base):
    """A job to run again and again, with gates."""

    __tablename__ = "pipelines"
    __table_args__ = (Index(None, "project_id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    template: Mapped[dict[str, Any]]  # a JobTemplate
    gates: Mapped[list[dict[str, Any]]]  # Gate documents
    model_name: Mapped[str | None] = mapped_column(String(200))  # runs take the newest ready model of this name
    branches: Mapped[list[str]] = mapped_column(JSON)  # patterns; empty: all
    secret: Mapped[str] = mapped_column(String(100))  # of inbound hooks
    report_link_s: Mapped[int]  # how long links to reports open without a key; 0: they do not
    status_endpoint_id: Mapped[str | None] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="SET NULL"))
    status_repository: Mapped[str] = mapped_column(String(300), default="")
    status_context: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(default=database_now())


class PipelineRun(Base):
    """One job of a pipeline, and what its gates said."""

    __tablename__ = "pipeline_runs"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    pipeline_id: Mapped[str] = mapped_column(ForeignKey("pipelines.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    state: Mapped[RunState] = mapped_column(_words(RunState, "state"), default=RunState.RUNNING)
    trigger: Mapped[dict[str, Any]]  # a Trigger
    verdicts: Mapped[list[dict[str, Any]]]  # GateVerdict documents, once the job has ended
    reason: Mapped[str] = mapped_column(Text, default="")
    target_url: Mapped[str | None] = mapped_column(String(2000))
    created_at: Mapped[datetime] = mapped_column(default=database_now())
    finished_at: Mapped[datetime | None]


class HookEvent(Base):
    """An inbound event that was accepted: sent again, it starts nothing."""

    __tablename__ = "hook_events"

    pipeline_id: Mapped[str] = mapped_column(ForeignKey("pipelines.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(300), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("pipeline_runs.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=database_now())


class Upload(Owned, Base):
    """A file that arrives in pieces; what arrived before `offset` is kept."""

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "project_id"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    purpose: Mapped[str] = mapped_column(Text)  # what is to become of it, as the sender wrote it
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    pieces: Mapped[int] = mapped_column(default=0)
    holder: Mapped[str | None] = mapped_column(String(32))  # the request that is sending bytes
    held_until: Mapped[datetime | None]  # unless renewed
    result_id: Mapped[str | None] = mapped_column(String(ID_LENGTH))  # the model or dataset that it became
    refusal: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # why it became none
    created_at: Mapped[datetime] = mapped_column(default=database_now())
    expires_at: Mapped[datetime] = mapped_column(index=True)


class UploadPiece(Base):
    """Bytes of an upload, in a blob of the upload's own scope."""

    __tablename__ = "upload_pieces"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    blob_key: Mapped[str] = mapped_column(String(200))
