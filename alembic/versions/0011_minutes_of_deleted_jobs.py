"""The minutes of jobs that were deleted: they stay used."""

import sqlalchemy as sa

from alembic import op
from models_store.database_time import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("deleted_jobs_s", sa.Double))
    op.add_column("projects", sa.Column("deleted_jobs_at", UtcDateTime))
    op.execute(sa.table("projects", sa.column("deleted_jobs_s")).update().values(deleted_jobs_s=0.0))
    with op.batch_alter_table("projects") as batch:
        batch.alter_column("deleted_jobs_s", nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("projects") as batch:
        batch.drop_column("deleted_jobs_at")
        batch.drop_column("deleted_jobs_s")
