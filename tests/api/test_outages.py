"""What the API says when something it needs is down, and that it recovers."""

import resource
from pathlib import Path

import httpx
import psycopg
from sqlalchemy import make_url

from models_store.database import Database
from tests.api.answers import problem
from tests.api.processes import api_process
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes
from tests.redis_server import free_port

MIB = 2**20


def checks(response: httpx.Response) -> dict[str, bool]:
    return {check["name"]: check["ok"] for check in response.json()["checks"]}


def test_a_service_that_has_all_it_needs_is_ready(service: Service) -> None:
    assert service.http.get("/healthz").json() == {"status": "ok"}
    response = service.http.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "ready")
    assert checks(response) == {"database": True, "blobs": True, "broker": True}


def test_a_broker_that_is_down_is_named(sqlite_url: str, serve: Serve) -> None:
    with serve(sqlite_url, redis_url=f"redis://127.0.0.1:{free_port()}/0") as service:
        response = service.http.get("/readyz")
        assert service.http.get("/healthz").is_success
    assert (response.status_code, response.json()["status"]) == (503, "unavailable")
    assert checks(response) == {"database": True, "blobs": True, "broker": False}


def test_a_database_without_tables_is_named(serve: Serve, tmp_path: Path) -> None:
    with serve(f"sqlite:///{tmp_path / 'empty.db'}") as service:
        response = service.http.get("/readyz")
        assert checks(response) == {"database": False, "blobs": True, "broker": True}
        assert response.json()["checks"][0]["message"] == "SchemaOutdated"
        problem(service.http.get("/v1/models"), 503, "database_unavailable")
        Database(service.settings.database_url).upgrade()
        assert service.http.get("/v1/models").json()["items"] == []
        assert service.http.get("/readyz").is_success


def test_a_database_that_goes_away_is_named_and_nothing_is_half_done(
    postgresql_url: str, postgresql_server: str, serve: Serve
) -> None:
    name = make_url(postgresql_url).database
    with serve(postgresql_url) as service:
        service.upload_model()
        with psycopg.connect(postgresql_server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            refusal = service.http.put("/v1/models/net", content=onnx_bytes())
            assert "/readyz" in problem(refusal, 503, "database_unavailable")["hint"]
            assert refusal.headers["Retry-After"]
            problem(service.http.get("/v1/jobs"), 503, "database_unavailable")
            response = service.http.get("/readyz")
            assert checks(response) == {"database": False, "blobs": True, "broker": True}
            assert name not in response.text
            connection.execute(f"CREATE DATABASE {name}")
        service.database.dispose()
        service.database.upgrade()
        service.upload_model()
        assert service.incoming() == []


def test_a_full_disk_is_said_and_leaves_nothing_behind(sqlite_url: str, tmp_path: Path) -> None:
    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))

    with api_process(sqlite_url, tmp_path, limit_file_size) as (_, url), httpx.Client(base_url=url) as http:
        response = http.put("/v1/models/net", content=b"\x08\x0a\x3a" + bytes(8 * MIB))
        problem(response, 507, "storage_full")
        assert list((tmp_path / "blobs" / "incoming").iterdir()) == []
        assert http.put("/v1/models/net", content=onnx_bytes()).status_code == 201


def test_blobs_that_cannot_be_written_are_named(sqlite_service: Service) -> None:
    sqlite_service.blobs.incoming_dir.rmdir()
    assert checks(sqlite_service.http.get("/readyz")) == {"database": True, "blobs": False, "broker": True}
    refusal = sqlite_service.http.put("/v1/models/net", content=onnx_bytes())
    assert "/readyz" in problem(refusal, 503, "storage_unavailable")["hint"]
    assert refusal.headers["Retry-After"]
    sqlite_service.blobs.incoming_dir.mkdir()
    sqlite_service.upload_model()
