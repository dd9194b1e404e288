"""Every route of the OpenAPI document, called with another project's key, without one, and with too small a one.

A route that is added is walked by itself where its path parameters and body are known here; where they are not, a test
fails and says what to add. That the database confines what these routes ask for is shown in tests/unit/store.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import ApiKey, Base
from tests.api.answers import problem
from tests.api.keyed import Keyed, keyed_service, project_of
from tests.api.owned import BUDGET, NPZ, TUS, owned_things
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes

PUBLIC = {"healthz", "readyz"}
"""Asked by machines that have no key, and tell nothing about any project."""
SIGNED = {"receive_event": (401, "bad_signature"), "open_link": (403, "link_invalid")}
"""No key, but a signature: of the pipeline that they start, or of the file that they open."""
READING = {"link_artifact"}
"""Although it is no GET: it changes nothing but the audit log."""
SHARED = {"list_methods", "describe_uploads"}
"""The same for everybody."""
ADMIN = {"create_key", "list_keys", "get_key", "rotate_key", "revoke_key", "list_changes"}
INSTANCE = {"read_metrics", "create_project", "list_projects", "get_project", "change_project", "create_project_key"}
LATE_CHANGES = {"append_to_upload"}
"""Told when the last piece has made it something: see test_audit.py."""
NAMES_ITS_OWN = {"put_model", "put_dataset"}
"""Their path parameter is the name of what the caller makes, and not of what there is."""

PIECE = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}

REQUESTS: dict[str, dict[str, Any]] = {
    "upload_model": {"files": {"file": ("net.onnx", onnx_bytes())}},
    "put_model": {"content": onnx_bytes()},
    "upload_dataset": {"files": {"file": ("data.npz", NPZ)}},
    "put_dataset": {"content": NPZ},
    "create_job": {"json": {"model_id": "{model}", "budget": BUDGET}},
    "retry_job": {"json": {}},
    "link_artifact": {"json": {"seconds": 60}},
    "open_link": {"params": {"expires": "4000000000", "signature": "0" * 64}},
    "create_pipeline": {"json": {"name": "p", "job": {"budget": BUDGET}}},
    "start_run": {"json": {}},
    "create_webhook": {"json": {"url": "https://example.org/"}},
    "change_webhook": {"json": {"description": "changed"}},
    "create_key": {"json": {"name": "k"}},
    "create_project": {"json": {"name": "p"}},
    "change_project": {"json": {"name": "q"}},
    "create_project_key": {"json": {"name": "k"}},
    "rotate_key": {"json": {}},
    "create_upload": {"headers": TUS},
    "append_to_upload": {"headers": PIECE, "content": b"x"},
    "get_upload_offset": {"headers": TUS},
    "delete_upload": {"headers": TUS},
}
"""What to send to routes that take a body or headers; `{name}` stands for an id of the other project."""


@dataclass(frozen=True)
class Operation:
    """One route and method."""

    id: str
    method: str
    path: str
    has_body: bool
    parameters: frozenset[str] = field(default_factory=frozenset)

    @property
    def reads(self) -> bool:
        return self.method in ("GET", "HEAD", "OPTIONS")

    def send(self, service: Service, ids: dict[str, str]) -> Any:
        unknown = self.parameters - ids.keys()
        assert not unknown, (
            f"{self.id} has path parameters that this test does not know: {', '.join(unknown)}. Make such a thing in "
            "owned.py, so that another project can ask for it."
        )
        assert not self.has_body or self.id in REQUESTS or self.id in SIGNED, (
            f"{self.id} takes a body that this test does not know: add one to REQUESTS that names things of another "
            "project wherever it can."
        )
        return service.http.request(self.method, self.path.format(**ids), **_filled(REQUESTS.get(self.id, {}), ids))


def _filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(child, ids) for name, child in value.items()}
    return ids.get(value[1:-1], value) if isinstance(value, str) and value.startswith("{") else value


@pytest.fixture
def keyed(sqlite_url: str, serve: Serve) -> Iterator[Keyed]:
    with keyed_service(serve, sqlite_url) as keyed:
        yield keyed


@pytest.fixture
def operations(keyed: Keyed) -> list[Operation]:
    document = keyed.service.http.get("/openapi.json").raise_for_status().json()
    return [
        Operation(
            operation["operationId"],
            method.upper(),
            path,
            "requestBody" in operation,
            frozenset(re.findall(r"{(\w+)}", path)),
        )
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def refused(operation: Operation, answer: httpx.Response, status: int, code: str) -> None:
    if operation.method == "HEAD":
        assert answer.status_code == status, operation.id
    else:
        problem(answer, status, code)


def everything_of(service: Service, project_id: str) -> dict[str, list[Any]]:
    """All rows of a project."""
    tables = {mapper.class_: [column.key for column in mapper.columns] for mapper in Base.registry.mappers}
    with service.database.of_project(project_id).session(read_only=True) as session:
        return {
            kind.__tablename__: sorted(
                [repr([getattr(row, name) for name in names if name != "last_used_at"]) for row in rows]
            )
            for kind, names in tables.items()
            if (rows := session.scalars(select(kind)).all())
        }


def test_the_walk_knows_every_route(operations: list[Operation]) -> None:
    known = {operation.id for operation in operations}
    assert (PUBLIC | set(SIGNED) | READING | SHARED | ADMIN | INSTANCE | NAMES_ITS_OWN | set(REQUESTS)) <= known


def test_another_projects_key_finds_and_changes_nothing(keyed: Keyed, operations: list[Operation]) -> None:
    with keyed.as_project() as owner:
        ids = owned_things(owner)
    before = everything_of(keyed.service, DEFAULT_PROJECT)
    assert len(before) >= 12
    with keyed.as_project(project_of(keyed.service, "others")) as stranger:
        for operation in operations:
            answer = operation.send(stranger, ids)
            if operation.id in PUBLIC | SHARED:
                assert answer.is_success
            elif operation.id in SIGNED:
                problem(answer, *SIGNED[operation.id])
            elif operation.id in INSTANCE:
                problem(answer, 403, "scope_missing")
            elif operation.id in NAMES_ITS_OWN:
                assert answer.status_code == 201, (operation.id, answer.text)
            elif operation.parameters or operation.id == "create_job":
                assert answer.status_code == 404, (
                    f"{operation.id} answers {answer.status_code} to another project's key: read and write through the "
                    f"caller's session (ReadSession, WriteSession, CreationDep, PlaneDep). {answer.text}"
                )
            elif operation.reads:
                assert all(id not in answer.text for id in ids.values() if "_" in id), operation.id
            else:
                assert answer.status_code in (201, 202), (operation.id, answer.text)
    assert everything_of(keyed.service, DEFAULT_PROJECT) == before


def test_lists_show_what_is_the_callers(keyed: Keyed, operations: list[Operation]) -> None:
    with keyed.as_project() as owner:
        owned_things(owner)
    lists = [each for each in operations if each.reads and not each.parameters and each.path.startswith("/v1/")]
    with keyed.as_project(project_of(keyed.service, "others")) as stranger:
        for operation in lists:
            if operation.id in SHARED | INSTANCE:
                continue
            seen = operation.send(stranger, {}).raise_for_status().json()
            if operation.id == "get_usage":
                assert seen["stored_bytes"]["used"] == seen["unfinished_jobs"]["used"] == 0
            else:
                assert len(seen["items"]) == (1 if operation.id == "list_keys" else 0), operation.id


def test_nothing_of_another_project_can_be_named_in_a_body(keyed: Keyed) -> None:
    with keyed.as_project() as owner:
        ids = owned_things(owner)
    with keyed.as_project(project_of(keyed.service, "others")) as stranger:
        model = {"model_id": stranger.ready_model()}
        job = {"budget": BUDGET, "dataset_id": ids["dataset"]} | model
        problem(stranger.http.post("/v1/jobs", json=job), 404, "dataset_not_found")
        pipeline = stranger.http.post("/v1/pipelines", json={"name": "p", "job": {"budget": BUDGET}}).json()["id"]
        runs = f"/v1/pipelines/{pipeline}/runs"
        problem(stranger.http.post(runs, json={"model_id": ids["model"]}), 404, "model_not_found")
        foreign = model | {"dataset_id": ids["dataset"]}
        problem(stranger.http.post(runs, json=foreign), 404, "dataset_not_found")
        named = {"name": "p", "job": {"budget": BUDGET}, "model_name": "net"}
        pipeline = stranger.http.post("/v1/pipelines", json=named).json()["id"]
        assert stranger.http.post(f"/v1/pipelines/{pipeline}/runs", json={}).status_code == 202
        with keyed.as_project(project_of(keyed.service, "third")) as third:
            pipeline = third.http.post("/v1/pipelines", json=named).json()["id"]
            problem(third.http.post(f"/v1/pipelines/{pipeline}/runs", json={}), 409, "no_model")


def test_idempotency_keys_of_two_projects_are_two(keyed: Keyed) -> None:
    made = []
    for name in ("one", "two"):
        with keyed.as_project(project_of(keyed.service, name)) as service:
            send = {"json": {"url": "https://example.org/"}, "headers": {"Idempotency-Key": "same"}}
            first, second = (service.http.post("/v1/webhooks", **send).json()["id"] for _ in range(2))
            assert first == second
            made.append(first)
    assert made[0] != made[1]


def test_every_change_is_in_the_audit_log(keyed: Keyed, operations: list[Operation]) -> None:
    changes = [each for each in operations if not each.reads and each.id not in PUBLIC | set(SIGNED) | LATE_CHANGES]
    with keyed.as_project(DEFAULT_PROJECT, *Scope) as owner:
        ids = owned_things(owner)
        for operation in sorted(changes, key=lambda each: each.method == "DELETE"):
            if operation.method == "DELETE":
                for job in owner.http.get("/v1/jobs", params={"state": "queued"}).json()["items"]:
                    owner.http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
            fresh = {}
            if operation.id in ("cancel_job", "retry_job"):
                body = {"model_id": ids["model"], "budget": BUDGET}
                fresh["job_id"] = owner.http.post("/v1/jobs", json=body).json()["id"]
            if operation.id == "retry_job":
                owner.http.post(f"/v1/jobs/{fresh['job_id']}/cancel").raise_for_status()
            answer = operation.send(owner, ids | fresh)
            assert answer.is_success, f"{operation.id}: make this test's request one that succeeds. {answer.text}"
            (latest,) = owner.http.get("/v1/audit", params={"limit": 1}).json()["items"]
            assert latest["action"] == operation.id, (
                f"{operation.id} leaves no entry in the audit log: write in a WriteSession or by CreationDep, or call "
                "AuditRepository(session).record(path) in the transaction of the change."
            )


def test_without_a_key_nothing_is_answered(keyed: Keyed, operations: list[Operation]) -> None:
    for operation in operations:
        if operation.id in PUBLIC | set(SIGNED):
            continue
        answer = keyed.service.http.request(operation.method, operation.path)
        refused(operation, answer, 401, "key_missing")
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="espalier"'


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE, Scope.ADMIN])
def test_a_scope_opens_its_own_routes_only(keyed: Keyed, operations: list[Operation], scope: Scope) -> None:
    with keyed.as_project(DEFAULT_PROJECT, scope) as service:
        for operation in operations:
            if operation.id in PUBLIC | set(SIGNED):
                continue
            wanted = Scope.READ if operation.reads or operation.id in READING else Scope.WRITE
            wanted = Scope.ADMIN if operation.id in ADMIN else wanted
            wanted = Scope.INSTANCE if operation.id in INSTANCE else wanted
            if wanted is scope:
                continue
            answer = service.http.request(operation.method, operation.path)
            refused(operation, answer, 403, "scope_missing")
            assert f'error="insufficient_scope", scope="{wanted}"' in answer.headers["WWW-Authenticate"], operation.id
    with keyed.service.database.session(read_only=True) as session:
        assert len(session.scalars(select(ApiKey)).all()) == 1
