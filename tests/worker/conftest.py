"""Fixtures of the job plane's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models_store.blobs import BlobStore
from models_store.database import Database
from tests.redis_server import RedisServer
from tests.worker.plane import Plane


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as broker:
        yield broker


@pytest.fixture
def plane(sqlite_url: str, blobs: BlobStore, broker: RedisServer, tmp_path: Path) -> Iterator[Plane]:
    """A job plane on SQLite."""
    yield from _plane(Database(sqlite_url), blobs, broker, tmp_path)


@pytest.fixture
def either_plane(database_url: str, blobs: BlobStore, broker: RedisServer, tmp_path: Path) -> Iterator[Plane]:
    """A job plane on SQLite and on PostgreSQL in turn."""
    yield from _plane(Database(database_url), blobs, broker, tmp_path)


def _plane(database: Database, blobs: BlobStore, broker: RedisServer, folder: Path) -> Iterator[Plane]:
    plane = Plane(database, blobs, broker, folder)
    yield plane
    plane.stop()
    database.dispose()
