"""Pipelines, their runs, and the inbound events that started some."""

import sqlalchemy as sa

from alembic import op
from models_store.database_time import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATES = sa.Enum(
    "running", "passed", "failed", "errored", name="state", native_enum=False, create_constraint=True, length=16
)


def upgrade() -> None:
    op.create_table(
        "pipelines",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(36), nullable=False, index=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("template", sa.JSON, nullable=False),
        sa.Column("gates", sa.JSON, nullable=False),
        sa.Column("model_name", sa.String(200)),
        sa.Column("branches", sa.JSON, nullable=False),
        sa.Column("secret", sa.String(100), nullable=False),
        sa.Column("status_endpoint_id", sa.String(36), sa.ForeignKey("webhook_endpoints.id", ondelete="SET NULL")),
        sa.Column("status_repository", sa.String(300), nullable=False),
        sa.Column("status_context", sa.String(200), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "pipeline_runs",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column(
            "pipeline_id", sa.String(36), sa.ForeignKey("pipelines.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("job_id", sa.String(36), sa.ForeignKey("jobs.id", ondelete="SET NULL"), index=True),
        sa.Column("state", STATES, nullable=False),
        sa.Column("trigger", sa.JSON, nullable=False),
        sa.Column("verdicts", sa.JSON, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("target_url", sa.String(2000)),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
    )
    op.create_table(
        "hook_events",
        sa.Column("pipeline_id", sa.String(36), sa.ForeignKey("pipelines.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", sa.String(300), primary_key=True),
        sa.Column("run_id", sa.String(36), sa.ForeignKey("pipeline_runs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("hook_events", "pipeline_runs", "pipelines"):
        op.drop_table(table)
