"""/v1/keys and /v1/projects: made, used, rotated, revoked; what is refused, and how it is said."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select, text, update

from app.settings import ApiSettings
from models_store.database_time import database_now
from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import ApiKey
from tests.api.answers import problem
from tests.api.keyed import Keyed, key_of, keyed_service
from tests.api.running_api import Serve, Service
from tests.waiting import until

TEXT = re.compile(r"esp_[0-9a-f]{32}_[A-Za-z0-9]{43}")


@pytest.fixture
def keyed(database_url: str, serve: Serve) -> Iterator[Keyed]:
    with keyed_service(serve, database_url) as keyed:
        yield keyed


@pytest.fixture
def sqlite_keyed(sqlite_url: str, serve: Serve) -> Iterator[Keyed]:
    with keyed_service(serve, sqlite_url) as keyed:
        yield keyed


def refused(keyed: Keyed, key: str, code: str) -> None:
    with keyed.with_key(key) as service:
        answer = service.http.get("/v1/jobs")
    problem(answer, 401, code)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="espalier", error="invalid_token"'


def accepted(keyed: Keyed, key: str) -> None:
    with keyed.with_key(key) as service:
        service.http.get("/v1/jobs").raise_for_status()


def test_a_key_from_its_making_to_its_end(keyed: Keyed) -> None:
    with keyed.as_project() as admin:
        made = admin.http.post("/v1/keys", json={"name": "ci", "scopes": ["read"]})
        assert made.status_code == 201, made.text
        body = made.json()
        key, url = body.pop("key"), made.headers["Location"]
        assert TEXT.fullmatch(key)
        assert key.split("_")[1] == body["id"].removeprefix("key_")
        assert admin.http.get(url).json() == body
        assert body["last_used_at"] is None
        accepted(keyed, key)
        until(lambda: admin.http.get(url).json()["last_used_at"] is not None)
        assert [row["name"] for row in admin.http.get("/v1/keys").json()["items"]] == ["ci", "test"]
        for _ in range(2):
            assert admin.http.delete(url).status_code == 204
        refused(keyed, key, "key_revoked")
        assert admin.http.get(url).json()["revoked_at"] is not None
        problem(admin.http.post(f"{url}/rotate"), 409, "key_is_revoked")
        problem(admin.http.get(f"/v1/keys/key_{'0' * 32}"), 404, "key_not_found")


def test_the_secret_is_not_kept(keyed: Keyed) -> None:
    """Nowhere in the database: not even as the answer that an Idempotency-Key would repeat."""
    with keyed.as_project() as admin:
        send = {"json": {"name": "ci"}, "headers": {"Idempotency-Key": "k"}}
        first = admin.http.post("/v1/keys", **send).json()
        again = admin.http.post("/v1/keys", **send)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.json() == {name: value for name, value in first.items() if name != "key"}
        rotated = admin.http.post(f"/v1/keys/{first['id']}/rotate", headers={"Idempotency-Key": "r"}).json()
    with keyed.service.database.session(read_only=True) as session:
        for table in ("api_keys", "idempotency_keys"):
            kept = str(session.execute(text(f"SELECT * FROM {table}")).all())  # noqa: S608  two names of ours
            for key in (first["key"], rotated["key"]):
                assert key.rpartition("_")[2] not in kept


def test_a_rotation_leaves_time_to_replace_the_old_secret(keyed: Keyed) -> None:
    with keyed.as_project() as admin:
        made = admin.http.post("/v1/keys", json={"name": "ci"}).json()
        keys = [made["key"]]
        for _ in range(2):
            rotated = admin.http.post(f"/v1/keys/{made['id']}/rotate", json={"grace_s": 3600}).raise_for_status().json()
            keys.append(rotated["key"])
        ends_in = datetime.fromisoformat(rotated["previous_expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=59) < ends_in <= timedelta(hours=1)
        refused(keyed, keys[0], "key_invalid")
        accepted(keyed, keys[1])
        accepted(keyed, keys[2])
        with keyed.service.database.session() as session:
            session.execute(update(ApiKey).values(previous_expires_at=database_now(-1)))
        refused(keyed, keys[1], "key_expired")
        accepted(keyed, keys[2])
        at_once = admin.http.post(f"/v1/keys/{made['id']}/rotate", json={"grace_s": 0}).json()["key"]
        refused(keyed, keys[2], "key_expired")
        accepted(keyed, at_once)


def test_a_key_ends_when_it_was_said_to(keyed: Keyed) -> None:
    with keyed.as_project() as admin:
        past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        problem(admin.http.post("/v1/keys", json={"name": "k", "expires_at": past}), 422, "already_expired")
        soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        key = admin.http.post("/v1/keys", json={"name": "k", "expires_at": soon}).raise_for_status().json()
    accepted(keyed, key["key"])
    with keyed.service.database.session() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key["id"]).values(expires_at=database_now(-1)))
    refused(keyed, key["key"], "key_expired")


def test_what_is_no_key_is_refused(sqlite_keyed: Keyed) -> None:
    key = key_of(sqlite_keyed.service)
    last = "b" if key.endswith("a") else "a"
    for wrong in (
        key[:-1] + last,
        key[:-1],
        key + "a",
        key.upper(),
        f"esp_{'0' * 32}_{'a' * 43}",
        "esp__",
        "é" * 40,
        "x" * 5000,
    ):
        refused(sqlite_keyed, wrong, "key_invalid")
    for header in ("", "Basic dXNlcjpwYXNz", key, "Bearer"):
        answer = sqlite_keyed.service.http.get("/v1/jobs", headers={"Authorization": header})
        problem(answer, 401, "key_missing")


def test_keys_of_a_disabled_project_are_refused_until_it_is_enabled(sqlite_keyed: Keyed) -> None:
    with sqlite_keyed.as_project(DEFAULT_PROJECT, *Scope) as operator:
        made = operator.http.post("/v1/projects", json={"name": "vision"})
        assert made.status_code == 201, made.text
        project = made.json()
        new = {"name": "their admin", "scopes": ["read", "admin"]}
        key = operator.http.post(f"/v1/projects/{project['id']}/keys", json=new).raise_for_status().json()
        assert key["project_id"] == project["id"]
        accepted(sqlite_keyed, key["key"])
        url = made.headers["Location"]
        assert operator.http.patch(url, json={"enabled": False, "name": "seen"}).json()["name"] == "seen"
        refused(sqlite_keyed, key["key"], "key_revoked")
        operator.http.patch(url, json={"enabled": True}).raise_for_status()
        accepted(sqlite_keyed, key["key"])
        problem(operator.http.patch(f"/v1/projects/{DEFAULT_PROJECT}", json={"enabled": False}), 409, "own_project")
        problem(operator.http.post("/v1/projects", json={"name": "default"}), 409, "project_name_taken")
        problem(operator.http.patch(url, json={"name": "default"}), 409, "project_name_taken")
        problem(operator.http.get(f"/v1/projects/prj_{'1' * 32}"), 404, "project_not_found")
        problem(operator.http.post(f"/v1/projects/prj_{'1' * 32}/keys", json=new), 404, "project_not_found")
        assert [row["name"] for row in operator.http.get("/v1/projects").json()["items"]] == ["seen", "default"]


def test_an_admin_of_a_project_gets_no_power_over_others(sqlite_keyed: Keyed) -> None:
    key_of(sqlite_keyed.service, DEFAULT_PROJECT, Scope.INSTANCE)
    with sqlite_keyed.as_project() as admin:
        problem(admin.http.post("/v1/keys", json={"name": "k", "scopes": ["instance"]}), 403, "scope_missing")
        (operators,) = (
            row["id"] for row in admin.http.get("/v1/keys").json()["items"] if row["scopes"] == ["instance"]
        )
        problem(admin.http.post(f"/v1/keys/{operators}/rotate"), 403, "scope_missing")
        problem(admin.http.delete(f"/v1/keys/{operators}"), 403, "scope_missing")


def test_a_use_is_written_once_a_minute(sqlite_keyed: Keyed) -> None:
    key = key_of(sqlite_keyed.service)
    seen = set()
    for _ in range(3):
        accepted(sqlite_keyed, key)
        with sqlite_keyed.service.database.session(read_only=True) as session:
            seen.add(session.scalar(select(ApiKey.last_used_at)))
    assert len(seen - {None}) <= 1


@pytest.mark.parametrize(
    ("auth", "host", "keyed"),
    [
        ("auto", "127.0.0.1", False),
        ("auto", "::1", False),
        ("auto", "localhost", False),
        ("auto", "0.0.0.0", True),  # noqa: S104
        ("auto", "192.168.1.7", True),
        ("auto", "::", True),
        ("required", "127.0.0.1", True),
        ("off", "0.0.0.0", False),  # noqa: S104
    ],
)
def test_keys_are_asked_for_unless_only_this_machine_can_ask(auth: str, host: str, keyed: bool) -> None:
    assert ApiSettings.model_validate({"auth": auth, "host": host}).keyed is keyed


def test_the_open_service_says_so_and_asks_for_nothing(sqlite_service: Service) -> None:
    assert sqlite_service.http.get("/readyz").json()["auth"] == "off"
    document = sqlite_service.http.get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    assert not any("security" in operation for path in document["paths"].values() for operation in path.values())
    with httpx.Client(base_url=sqlite_service.url, headers={"Authorization": "Bearer esp_whatever"}) as http:
        http.get("/v1/jobs").raise_for_status()


def test_the_document_tells_swagger_how_to_authorize(sqlite_keyed: Keyed) -> None:
    http = sqlite_keyed.service.http
    assert http.get("/readyz").json()["auth"] == "required"
    document = http.get("/openapi.json").json()
    scheme = document["components"]["securitySchemes"]["ApiKey"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for path, methods in document["paths"].items():
        for operation in methods.values():
            keyed = path.startswith("/v1/") or path == "/metrics"
            expected = keyed and not path.startswith(("/v1/hooks/", "/v1/shared/"))
            assert (operation.get("security") == [{"ApiKey": []}]) is expected, operation["operationId"]
            assert ("401" in operation["responses"]) is (keyed and not path.startswith("/v1/shared/"))
