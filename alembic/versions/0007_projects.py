"""Projects, their API keys, and whom models, datasets and jobs belong to: so far, all to the default project."""

import sqlalchemy as sa

from alembic import op
from models_store.database_time import UtcDateTime, database_now

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

DEFAULT_PROJECT = f"prj_{0:032x}"
NEWLY_OWNED = ("models", "datasets", "jobs")
ALREADY_OWNED = ("idempotency_keys", "webhook_endpoints", "pipelines", "uploads")


def upgrade() -> None:
    projects = op.create_table(
        "projects",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )
    op.execute(projects.insert().values(id=DEFAULT_PROJECT, name="default", enabled=True, created_at=database_now()))
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(36), sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("previous_hash", sa.String(64)),
        sa.Column("previous_expires_at", UtcDateTime),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("last_used_at", UtcDateTime),
        sa.Column("revoked_at", UtcDateTime),
        sa.Index(None, "project_id", "id"),
    )
    for table in NEWLY_OWNED:
        op.add_column(table, sa.Column("project_id", sa.String(36)))
        op.execute(sa.table(table, sa.column("project_id")).update().values(project_id=DEFAULT_PROJECT))
        with op.batch_alter_table(table) as batch:
            batch.alter_column("project_id", nullable=False)
            batch.create_foreign_key(None, "projects", ["project_id"], ["id"])
            batch.create_index(None, ["project_id", "id"])
    for table in ALREADY_OWNED:
        with op.batch_alter_table(table) as batch:
            batch.create_foreign_key(None, "projects", ["project_id"], ["id"])


def downgrade() -> None:
    for table in ALREADY_OWNED:
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"fk_{table}_project_id_projects", type_="foreignkey")
    for table in NEWLY_OWNED:
        with op.batch_alter_table(table) as batch:
            batch.drop_index(f"ix_{table}_project_id_id")
            batch.drop_constraint(f"fk_{table}_project_id_projects", type_="foreignkey")
            batch.drop_column("project_id")
    op.drop_table("api_keys")
    op.drop_table("projects")
