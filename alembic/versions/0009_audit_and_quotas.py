"""The audit log, limits of single projects, and how long each job has run."""

import sqlalchemy as sa

from alembic import op
from models_store.database_time import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

LIMITS = {"stored_bytes_limit": sa.BigInteger, "unfinished_jobs_limit": sa.Integer, "job_minutes_limit": sa.Integer}


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(36), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("key_id", sa.String(36)),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("resource", sa.String(300), nullable=False),
        sa.Column("address", sa.String(100), nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Index(None, "project_id", "id"),
    )
    for name, kind in LIMITS.items():
        op.add_column("projects", sa.Column(name, kind))
    op.add_column("jobs", sa.Column("used_s", sa.Double))
    op.execute(sa.table("jobs", sa.column("used_s")).update().values(used_s=0.0))
    with op.batch_alter_table("jobs") as batch:
        batch.alter_column("used_s", nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("jobs") as batch:
        batch.drop_column("used_s")
    with op.batch_alter_table("projects") as batch:
        for name in LIMITS:
            batch.drop_column(name)
    op.drop_table("audit_entries")
