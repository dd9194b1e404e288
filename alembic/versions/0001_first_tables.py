"""The first tables: models, datasets, jobs with their events, reports and artifacts."""

import sqlalchemy as sa

from alembic import op
from models_store.database_time import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INPUT_STATES = ("inspecting", "ready", "rejected")
JOB_STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
EVENT_TYPES = ("state", "stage", "progress", "log", "metric")


def _words(*words: str, name: str) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=16)


def _input_columns() -> list[sa.Column]:
    return [
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("format", sa.String(32), nullable=False),
        sa.Column("state", _words(*INPUT_STATES, name="state"), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, index=True),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("blob_key", sa.String(200), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("inspection", sa.JSON),
        sa.Column("rejection", sa.JSON),
        sa.Column("created_at", UtcDateTime, nullable=False),
    ]


def _job_id() -> sa.Column:
    return sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


def upgrade() -> None:
    op.create_table("models", *_input_columns(), sa.Column("onnx_key", sa.String(200)))
    op.create_table("datasets", *_input_columns())
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("label", sa.String(200)),
        sa.Column("model_id", sa.String(36), sa.ForeignKey("models.id", ondelete="SET NULL"), index=True),
        sa.Column("dataset_id", sa.String(36), sa.ForeignKey("datasets.id", ondelete="SET NULL"), index=True),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("deadline_s", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("state", _words(*JOB_STATES, name="state"), nullable=False),
        sa.Column("stages", sa.JSON, nullable=False),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("started_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failed_attempts", sa.Integer, nullable=False),
        sa.Column("claimable_at", UtcDateTime, nullable=False),
        sa.Column("worker", sa.String(200)),
        sa.Column("lease_expires_at", UtcDateTime, index=True),
        sa.Column("event_seq", sa.Integer, nullable=False),
        sa.CheckConstraint("(state IN ('running', 'cancelling')) = (lease_expires_at IS NOT NULL)", name="lease"),
        sa.Index(None, "state", "priority", "id"),
    )
    op.create_table(
        "job_events",
        _job_id(),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("type", _words(*EVENT_TYPES, name="type"), nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_table("job_reports", _job_id(), sa.Column("document", sa.JSON, nullable=False))
    op.create_table(
        "job_artifacts",
        _job_id(),
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("media_type", sa.String(100), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("blob_key", sa.String(200), nullable=False),
    )


def downgrade() -> None:
    for table in ("job_artifacts", "job_reports", "job_events", "jobs", "datasets", "models"):
        op.drop_table(table)
