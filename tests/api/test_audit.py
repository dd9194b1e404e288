"""/v1/audit: every change leaves an entry, in the transaction of the change, and no entry ever changes."""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, func, select, text, update

from models_store.audit import REFUSALS_PER_DAY, AuditRepository
from models_store.confinement import AppendOnly
from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import AuditEntry
from tests.api.answers import problem
from tests.api.keyed import Keyed, key_of, keyed_service, project_of
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes


@pytest.fixture
def keyed(sqlite_url: str, serve: Serve) -> Iterator[Keyed]:
    with keyed_service(serve, sqlite_url) as keyed:
        yield keyed


def entries(service: Service, **filters: str) -> list[dict[str, str]]:
    return service.http.get("/v1/audit", params=filters).raise_for_status().json()["items"]


def test_who_what_when_which_and_from_where(keyed: Keyed) -> None:
    with keyed.as_project() as service:
        (key_id,) = (row["id"] for row in service.http.get("/v1/keys").json()["items"])
        model_id = service.upload_model()
        service.worker.inspect()
        service.http.delete(f"/v1/models/{model_id}").raise_for_status()
        problem(service.http.delete(f"/v1/models/{model_id}"), 404, "model_not_found")
        deleted, uploaded = entries(service)
        assert (uploaded["action"], uploaded["resource"]) == ("upload_model", f"/v1/models/{model_id}")
        assert (deleted["action"], deleted["resource"]) == ("delete_model", f"/v1/models/{model_id}")
        assert uploaded["key_id"] == deleted["key_id"] == key_id
        assert uploaded["address"] == "127.0.0.1"
        assert uploaded["at"] < deleted["at"]
        assert entries(service, action="upload_model") == [uploaded]
        assert entries(service, key_id=key_id, resource="/v1/models/", after=deleted["id"]) == [uploaded]
        assert entries(service, created_before=deleted["at"]) == [uploaded]
        assert entries(service, resource="/v1/jobs") == entries(service, key_id="key_x") == []
        page = service.http.get("/v1/audit", params={"limit": 1}).json()
        assert (page["items"], page["next"]) == ([deleted], deleted["id"])


def test_who_deleted_a_job(keyed: Keyed) -> None:
    with keyed.as_project() as service:
        job_id = service.start_job()
        problem(service.http.delete(f"/v1/jobs/{job_id}"), 409, "job_in_use")
        service.worker.fail(service.worker.claim())
        service.http.delete(f"/v1/jobs/{job_id}").raise_for_status()
        (deleted,) = entries(service, action="delete_job")
        assert deleted["resource"] == f"/v1/jobs/{job_id}"


def test_a_key_that_is_not_let_in_is_told_to_those_it_was_meant_for(keyed: Keyed) -> None:
    project_id = project_of(keyed.service, "theirs")
    theirs = key_of(keyed.service, project_id)
    revoked = key_of(keyed.service, project_id)
    revoked_id = f"key_{revoked.split('_')[1]}"
    with keyed.as_project(project_id) as service:
        service.http.delete(f"/v1/keys/{revoked_id}").raise_for_status()
    for key, code in (("esp_nonsense", "key_invalid"), (theirs[:-1] + "-", "key_invalid"), (revoked, "key_revoked")):
        with keyed.with_key(key) as service:
            problem(service.http.get("/v1/jobs"), 401, code)
    with keyed.with_key(theirs[:-5] + "AAAAA") as service:
        problem(service.http.post("/v1/jobs", json={}), 401, "key_invalid")
    with keyed.with_key(None) as service:
        problem(service.http.get("/v1/jobs"), 401, "key_missing")
    with keyed.as_project(project_id) as service:
        guessed, used = entries(service)[:2]
        assert (guessed["action"], guessed["key_id"]) == ("refused_key_invalid", f"key_{theirs.split('_')[1]}")
        assert (used["action"], used["key_id"], used["resource"]) == ("refused_key_revoked", revoked_id, "/v1/jobs")
        assert used["address"] == "127.0.0.1"
    with keyed.as_project() as service:
        assert [(entry["action"], entry["key_id"]) for entry in entries(service)] == [("refused_key_invalid", None)] * 2


def test_refused_keys_fill_no_log(sqlite_url: str, serve: Serve) -> None:
    with keyed_service(serve, sqlite_url, refused_keys_per_minute=0) as keyed, keyed.with_key("esp_none") as guesser:
        for _ in range(REFUSALS_PER_DAY + 20):
            problem(guesser.http.get("/v1/jobs"), 401, "key_invalid")
        with keyed.service.database.session(read_only=True) as session:
            assert session.scalar(select(func.count()).select_from(AuditEntry)) == REFUSALS_PER_DAY
        with keyed.service.database.session() as session:  # a day later
            session.execute(text("UPDATE audit_entries SET id = 'aud_00' || substr(id, 7)"))
        problem(guesser.http.get("/v1/jobs"), 401, "key_invalid")
        with keyed.service.database.session(read_only=True) as session:
            assert session.scalar(select(func.count()).select_from(AuditEntry)) == REFUSALS_PER_DAY + 1


def test_no_path_and_no_failing_log_turn_a_refusal_into_an_error(
    database_url: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keyed_service(serve, database_url) as keyed, keyed.with_key("esp_none") as guesser:
        problem(guesser.http.get("/v1/jobs/%00%07x"), 401, "key_invalid")
        with keyed.as_project() as service:
            assert [entry["resource"] for entry in entries(service)] == ["/v1/jobs/%00%07x"]
        monkeypatch.setattr(AuditRepository, "record", None)
        problem(guesser.http.get("/v1/jobs"), 401, "key_invalid")


def test_a_repetition_is_no_change(keyed: Keyed) -> None:
    with keyed.as_project() as service:
        for _ in range(2):
            send = {"json": {"url": "https://example.org/"}, "headers": {"Idempotency-Key": "k"}}
            assert service.http.post("/v1/webhooks", **send).status_code == 201
        assert [entry["action"] for entry in entries(service)] == ["create_webhook"]


def test_what_an_operator_does_to_a_project_is_in_both_logs(keyed: Keyed) -> None:
    project_id = project_of(keyed.service, "theirs")
    with keyed.as_project(DEFAULT_PROJECT, *Scope) as operator:
        operator.http.patch(f"/v1/projects/{project_id}", json={"name": "ours"}).raise_for_status()
        operator.http.post(f"/v1/projects/{project_id}/keys", json={"name": "k"}).raise_for_status()
        (changed,) = entries(operator)
        assert (changed["action"], changed["resource"]) == ("change_project", f"/v1/projects/{project_id}")
    with keyed.as_project(project_id) as service:
        (made,) = entries(service)
        assert (made["action"], made["key_id"]) == ("create_project_key", changed["key_id"])


def test_a_file_in_pieces_is_told_when_it_begins_and_when_it_is_a_model(sqlite_service: Service) -> None:
    content = onnx_bytes()
    version = {"Tus-Resumable": "1.0.0"}
    said = {**version, "Upload-Length": str(len(content)), "Upload-Metadata": "kind bW9kZWw="}
    path = sqlite_service.http.post("/v1/uploads", headers=said).headers["Location"]
    piece = {**version, "Content-Type": "application/offset+octet-stream"}
    for start, end in ((0, 10), (10, len(content))):
        headers = piece | {"Upload-Offset": str(start)}
        last = sqlite_service.http.patch(path, headers=headers, content=content[start:end])
    sqlite_service.http.delete(path, headers=version).raise_for_status()
    told = [(entry["action"], entry["resource"], entry["key_id"]) for entry in reversed(entries(sqlite_service))]
    model = last.headers["Upload-Result"]
    assert told == [
        ("create_upload", path, None),
        ("append_to_upload", model, None),
        ("delete_upload", path, None),
    ]


def test_no_entry_is_ever_changed(keyed: Keyed) -> None:
    with keyed.as_project() as service:
        service.upload_model()
    database = keyed.service.database.of_project(DEFAULT_PROJECT)
    for statement in (delete(AuditEntry), update(AuditEntry).values(action="nothing")):
        with pytest.raises(AppendOnly), database.session() as session:
            session.execute(statement)
    with pytest.raises(AppendOnly), database.session() as session:
        session.scalars(select(AuditEntry)).one().action = "nothing"
    with pytest.raises(AppendOnly), database.session() as session:
        session.delete(session.scalars(select(AuditEntry)).one())
