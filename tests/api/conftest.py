"""The real application over real HTTP: a uvicorn server on a free port, its own database and blob folder per test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from app.main import create_app
from app.settings import ApiSettings
from models_store.blobs import BlobStore
from models_store.database import Database
from tests.api.running_api import Serve, Service
from tests.redis_server import RedisServer


@pytest.fixture
def service(database_url: str, serve: Serve) -> Iterator[Service]:
    """On SQLite and on PostgreSQL in turn."""
    with serve(database_url) as service:
        yield service


@pytest.fixture
def sqlite_service(sqlite_url: str, serve: Serve) -> Iterator[Service]:
    """For what does not depend on the database."""
    with serve(sqlite_url) as service:
        yield service


@pytest.fixture
def serve(tmp_path: Path, redis_url: str) -> Serve:
    """Starts a service on a database, with further settings by name."""

    @contextmanager
    def start(database_url: str, **settings: object) -> Iterator[Service]:
        values = {"redis_url": redis_url, "event_poll_s": 0.05, "data_dir": tmp_path, "database_url": database_url}
        chosen = ApiSettings.model_validate(values | settings)
        # Listening before the server runs: whoever connects early waits in the backlog.
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(create_app(chosen), log_level="warning", timeout_graceful_shutdown=2, access_log=False)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        database = Database(chosen.database_url)
        try:
            with httpx.Client(base_url=url, timeout=30) as http:
                yield Service(http, url, chosen, database, BlobStore.from_settings(chosen))
        finally:
            server.should_exit = True
            thread.join(timeout=20)
            listener.close()
            database.dispose()
        assert not thread.is_alive(), "the server did not stop"

    return start


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A private Redis server."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url
