"""Idempotency keys."""

import sqlalchemy as sa

from alembic import op
from models_store.database_time import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("project_id", sa.String(36), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
        sa.Column("locked_until", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
        sa.Column("status", sa.Integer),
        sa.Column("location", sa.String(200)),
        sa.Column("body", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("idempotency_keys")
