"""What links to files are signed with, and how long a pipeline's links to reports open without a key."""

import secrets

import sqlalchemy as sa

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("link_secret", sa.String(64)))
    projects = sa.table("projects", sa.column("id"), sa.column("link_secret"))
    for id in op.get_bind().scalars(sa.select(projects.c.id)).all():
        op.execute(projects.update().where(projects.c.id == id).values(link_secret=secrets.token_hex(32)))
    op.add_column("pipelines", sa.Column("report_link_s", sa.Integer))
    op.execute(sa.table("pipelines", sa.column("report_link_s")).update().values(report_link_s=0))
    for table, column in (("projects", "link_secret"), ("pipelines", "report_link_s")):
        with op.batch_alter_table(table) as batch:
            batch.alter_column(column, nullable=False)


def downgrade() -> None:
    for table, column in (("pipelines", "report_link_s"), ("projects", "link_secret")):
        with op.batch_alter_table(table) as batch:
            batch.drop_column(column)
