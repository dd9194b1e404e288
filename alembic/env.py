"""Runs the migrations: on the connection that `Database` hands over, or on the settings' database from the shell."""

from sqlalchemy import Connection

from alembic import context
from models_store.database import Database
from models_store.settings import StoreSettings
from models_store.tables import Base


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite alters a table by rebuilding it
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    _migrate(handed_over)
else:
    with Database(StoreSettings().database_url).engine.begin() as own:
        _migrate(own)
