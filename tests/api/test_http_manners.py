"""What holds for every answer: problem documents, headers, and no service to pages of other sites."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel
from sqlalchemy import update

from app.errors import ApiError
from models_store.tables import Model
from tests.api.answers import problem
from tests.api.reports import report_document
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/models/a/b/c", "/docs/assets/nothing.js"])
def test_unknown_paths_are_problems(sqlite_service: Service, path: str) -> None:
    problem(sqlite_service.http.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        ("POST", "/v1/models/x", "GET, HEAD, PUT, DELETE"),
        ("PUT", "/healthz", "GET, HEAD"),
        ("POST", "/docs/assets/swagger-ui.css", "GET, HEAD"),
    ],
)
def test_wrong_methods_are_problems_that_list_the_right_ones(
    sqlite_service: Service, method: str, path: str, allowed: str
) -> None:
    response = sqlite_service.http.request(method, path)
    problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/v1/jobs/", "/v1/jobs//", "/healthz/", "/v1/models/%2F"])
def test_a_slash_too_many_is_said_and_leads_nowhere(sqlite_service: Service, path: str) -> None:
    body = problem(sqlite_service.http.get(path), 404, "not_found")
    assert "slash" in body["hint"]


def all_errors(kind: type[ApiError] = ApiError) -> Iterator[type[ApiError]]:
    for each in kind.__subclasses__():
        yield each
        yield from all_errors(each)


def test_every_error_says_what_to_do() -> None:
    found = list(all_errors())
    assert len(found) > 50
    assert [error.__name__ for error in found if not error.hint] == []
    assert len({error.code for error in found}) == len(found)


def all_answers(kind: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    for each in kind.__subclasses__():
        yield each
        yield from all_answers(each)


def test_moments_are_written_in_one_width_so_that_text_sorts_like_time(sqlite_service: Service) -> None:
    service = sqlite_service
    moments = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 71000, tzinfo=UTC)
    for moment in moments:
        model_id = service.upload_model()
        with service.database.session() as session:
            session.execute(update(Model).where(Model.id == model_id).values(created_at=moment))
    later, earlier = (row["created_at"] for row in service.http.get("/v1/models").json()["items"])
    assert (earlier, later) == ("2026-01-02T03:04:05.000000Z", "2026-01-02T03:04:05.071000Z")
    fields = {
        f"{answer.__name__}.{name}": str(field)
        for answer in set(all_answers())
        if answer.__module__.startswith(("app.", "models_store."))
        for name, field in answer.model_fields.items()
    }
    written = {name: field for name, field in fields.items() if "datetime" in field and "AfterValidator" not in field}
    assert len(written) > 15
    assert [name for name, field in written.items() if "PlainSerializer" not in field] == []


def test_head_is_get_without_a_body(sqlite_service: Service) -> None:
    service = sqlite_service
    job_id = service.start_job()
    content = bytes(3 << 20)
    events = f"/v1/jobs/{job_id}/events"
    assert service.http.head(events).headers["Content-Type"].startswith("text/event-stream")
    service.worker.succeed(service.worker.claim(), report_document(), {"pruned.onnx": content, "report.html": b"<p>"})
    file = f"/v1/jobs/{job_id}/artifacts/pruned.onnx"
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/report", f"/v1/jobs/{job_id}/report.html", file, "/healthz"):
        got, head = service.http.get(path), service.http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        for header in ("Content-Length", "Content-Type", "ETag", "Repr-Digest"):
            assert head.headers.get(header) == got.headers.get(header), (path, header)
    part = service.http.head(file, headers={"Range": "bytes=1-2"})
    assert (part.status_code, part.headers["Content-Range"]) == (206, f"bytes 1-2/{len(content)}")
    assert service.http.head("/v1/nothing").status_code == 404
    assert service.http.head("/v1/uploads").status_code == 405


MOMENTS = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_moments_of_no_year_are_refused(sqlite_service: Service, moment: str) -> None:
    for name in ("created_from", "created_before"):
        body = problem(sqlite_service.http.get("/v1/models", params={name: moment}), 422, "invalid_request")
        assert "years 1 to 9999" in body["detail"]
    new = {"name": "k", "expires_at": moment}
    problem(sqlite_service.http.post("/v1/keys", json=new), 422, "invalid_request")


def test_a_failure_of_our_own_shows_a_number_and_no_innards(sqlite_service: Service) -> None:
    model_id = sqlite_service.ready_model()
    with sqlite_service.database.session() as session:
        session.execute(update(Model).values(inspection={"of another version": True}))
    response = sqlite_service.http.get(f"/v1/models/{model_id}")
    body = problem(response, 500, "internal_error")
    assert re.fullmatch(r"Incident [0-9a-f]{12}\.", body["detail"])
    assert "another" not in response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Connection"] == "close"  # the server hangs up, and the next request needs to know
    assert sqlite_service.http.get("/healthz").is_success


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/docs", "/openapi.json", "/nowhere", "/v1/models/x"])
def test_every_answer_tells_browsers_to_be_careful(sqlite_service: Service, path: str) -> None:
    headers = sqlite_service.http.get(path).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "{url}"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "{url}"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, False),
        ({"Origin": "https://elsewhere.example"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_pages_of_other_sites_can_change_nothing(
    sqlite_service: Service, headers: dict[str, str], allowed: bool
) -> None:
    headers = {name: value.format(url=sqlite_service.url) for name, value in headers.items()}
    response = sqlite_service.http.post("/v1/models", files={"file": onnx_bytes()}, headers=headers)
    if allowed:
        assert response.status_code == 201, response.text
    else:
        problem(response, 403, "cross_site_request")
    assert sqlite_service.http.get("/v1/models", headers=headers).is_success


@pytest.mark.parametrize("host", ["localhost:8000", "[::1]:8000", "127.0.0.1", "espalier.example.org"])
def test_an_open_service_answers_to_names_of_this_machine(sqlite_url: str, serve: Serve, host: str) -> None:
    with serve(sqlite_url, public_url="https://espalier.example.org/prune") as service:
        assert service.http.get("/v1/jobs", headers={"Host": host}).is_success


@pytest.mark.parametrize(
    "host", ["rebound.example.org", "localhost.example.org:80", "10.0.0.7:8000", "127.0.0.1.nip.io", "["]
)
def test_an_open_service_answers_to_no_other_name(sqlite_service: Service, host: str) -> None:
    """A page under a name that was made to lead here would count as of the same origin."""
    problem(sqlite_service.http.get("/v1/jobs", headers={"Host": host}), 421, "unknown_host")


def test_a_service_that_asks_for_keys_answers_to_any_name(sqlite_url: str, serve: Serve) -> None:
    with serve(sqlite_url, auth="required") as service:
        problem(service.http.get("/v1/jobs", headers={"Host": "any.example.org"}), 401, "key_missing")
