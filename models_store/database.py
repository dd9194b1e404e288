"""The database: engine, transactions, migrations; SQLite and PostgreSQL alike."""

import copy
import json
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Self

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from models_store.confinement import PROJECT, ProjectSession
from models_store.errors import DatabaseUnavailable, SchemaOutdated

# Transactions begin where `_begin` says, not where the driver guesses.
SQLITE_TIMEOUT_S = 30.0
SQLITE_CONNECT = {"timeout": SQLITE_TIMEOUT_S, "isolation_level": None}
POSTGRESQL_CONNECT_TIMEOUT_S = 5
POSTGRESQL_POOL = {"pool_size": 10, "max_overflow": 20, "pool_pre_ping": True}
_dumps = partial(json.dumps, allow_nan=False)  # NaN is not JSON: PostgreSQL refuses it, so SQLite must too
MIGRATION_LOCK = 0x65737061  # PostgreSQL advisory lock: one migration at a time ("espa")


class Database:
    """One database, by URL: `sqlite:///path` or `postgresql+psycopg://user:password@host/name`.

    Threads may share it, and so may forked children, which open their own connections.
    """

    known: Mapping[str, object] = MappingProxyType({})
    """What its sessions know (`session.info`). Nothing: they see all projects, which is for workers."""

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        if self.url.get_backend_name() == "sqlite":
            self.engine = _sqlite_engine(self.url)
        else:
            self.engine = _postgresql_engine(self.url)
        self._readers = self.engine.execution_options(espalier_read_only=True, postgresql_readonly=True)
        _forget_connections_in_forked_children(self.engine)

    def of_project(self, project_id: str, **known: object) -> Self:
        """The same database, whose sessions see and write what belongs to the project and nothing else.

        `known` becomes part of their `info`: on whose behalf they work (`audit`), up to what limits (`quotas`).
        """
        confined = copy.copy(self)
        confined.known = MappingProxyType({PROJECT: project_id, **known})
        return confined

    @contextmanager
    def session(self, *, read_only: bool = False) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back if the block raises.

        Writers on SQLite begin with BEGIN IMMEDIATE, so that a transaction that reads and then writes cannot
        fail halfway. Readers (`read_only=True`) never wait for a writer, and a write in them is refused.
        Rows stay usable after the block.
        """
        kind = ProjectSession if self.known else Session
        engine = self._readers if read_only else self.engine
        with kind(engine, expire_on_commit=False, info=dict(self.known)) as session, session.begin():
            yield session

    def upgrade(self, revision: str = "head") -> None:
        """Bring the tables to `revision`, in one transaction; several processes may try at once."""
        with self._migrating() as config:
            command.upgrade(config, revision)

    def downgrade(self, revision: str) -> None:
        """Take the tables back to `revision` (`base`: no tables), in one transaction."""
        with self._migrating() as config:
            command.downgrade(config, revision)

    def check(self) -> None:
        """Raise `DatabaseUnavailable` if the database cannot be reached, `SchemaOutdated` if it is not migrated."""
        wanted = _head()
        try:
            with self._readers.connect() as connection:
                found = MigrationContext.configure(connection).get_current_revision()
        except DBAPIError as error:
            raise DatabaseUnavailable(
                f"cannot reach the database {self.url.render_as_string()}: {error.orig}"
            ) from error
        if found != wanted:
            raise SchemaOutdated(
                f"the database is at revision {found}, this version needs {wanted}: run `espalier db upgrade`"
            )

    def dispose(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _migrating(self) -> Iterator[Config]:
        engine = self.engine.execution_options(espalier_migrating=True)
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            yield _alembic_config(connection)
            _refuse_broken_references(connection)


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ValueError(f"not a database URL: {url!r}") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ValueError("SQLite needs a file, such as sqlite:////var/lib/espalier/espalier.db")
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+pysqlite")
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ValueError(f"database_url must begin with sqlite:/// or postgresql+psycopg://, not {parsed.drivername}://")


def _sqlite_engine(url: URL) -> Engine:
    Path(url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, json_serializer=_dumps, connect_args=SQLITE_CONNECT)

    @event.listens_for(engine, "connect")
    def _prepare(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous = FULL")  # a job that was accepted survives a power failure
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        read_only = options.get("espalier_read_only", False)
        # Rebuilding a table drops the old one, which must not cascade into the tables that refer to it.
        connection.exec_driver_sql(f"PRAGMA foreign_keys = {'OFF' if options.get('espalier_migrating') else 'ON'}")
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(cursor: DBAPICursor) -> None:
    """Switch to the write-ahead log. While another connection does the same to a new file, or writes to it, SQLite says
    `locked` at once instead of waiting for as long as it is told to."""
    deadline = time.monotonic() + SQLITE_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # or an extended code of it
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _postgresql_engine(url: URL) -> Engine:
    return create_engine(
        url,
        json_serializer=_dumps,
        connect_args={"connect_timeout": POSTGRESQL_CONNECT_TIMEOUT_S},
        **POSTGRESQL_POOL,
    )


def _forget_connections_in_forked_children(engine: Engine) -> None:
    """A connection shared by two processes corrupts both conversations."""
    reference = weakref.ref(engine)

    def forget() -> None:
        if (inherited := reference()) is not None:
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


def _alembic_config(connection: Connection | None = None) -> Config:
    """The migration scripts, which lie inside the package in a wheel and beside it in a checkout."""
    package = Path(__file__).resolve().parent
    folders = (package / "migrations", package.parent / "alembic")
    scripts = next(folder for folder in folders if (folder / "env.py").is_file())
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@cache
def _head() -> str | None:
    """The revision that this version needs."""
    return ScriptDirectory.from_config(_alembic_config()).get_current_head()


def _refuse_broken_references(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise RuntimeError(f"the migration would leave {len(broken)} rows that refer to nothing: {broken[:3]}")
