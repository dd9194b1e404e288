"""Links that open one file without a key: what they open, what they do not, and when they end."""

import logging
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from app.sharing.access_log import WithoutSignatures
from espalier import job_commands
from espalier.cli import app
from models_store.api_keys import ApiKeyRepository
from models_store.database_time import database_now
from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT
from models_store.shared_links import SharedLink, SharedLinkRepository
from models_store.tables import ApiKey, Project
from tests.api.answers import problem
from tests.api.keyed import Keyed, key_of, keyed_service, project_of
from tests.api.reports import report_document
from tests.api.running_api import Serve, Service

PAGE = b"<!doctype html><title>report</title>"
FILES = {"report.html": PAGE, "pruned.onnx": b"small" * 100, "größe v2.json": b"{}"}


@pytest.fixture
def keyed(sqlite_url: str, serve: Serve) -> Iterator[Keyed]:
    with keyed_service(serve, sqlite_url) as keyed:
        yield keyed


def finished_job(service: Service) -> str:
    job_id = service.start_job()
    service.worker.succeed(service.worker.claim(), report_document(), FILES)
    return job_id


def link_to(service: Service, job_id: str, name: str = "report.html", **body: object) -> str:
    answer = service.http.post(f"/v1/jobs/{job_id}/artifacts/{name}/link", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["url"]


def link_and_job(keyed: Keyed) -> tuple[str, str]:
    with keyed.as_project() as project:
        job_id = finished_job(project)
        return link_to(project, job_id), job_id


def changed(url: str, **query: str) -> str:
    """The link with other values in its query; an empty one takes the parameter out."""
    parts = urlsplit(url)
    values = dict(parse_qsl(parts.query)) | query
    return parts._replace(query=urlencode({name: value for name, value in values.items() if value})).geturl()


def test_a_browser_sees_the_page_without_a_key(database_url: str, serve: Serve) -> None:
    with keyed_service(serve, database_url) as keyed:
        url, _ = link_and_job(keyed)
        page = httpx.get(url, headers={"Accept": "text/html", "Sec-Fetch-Site": "cross-site"})
    assert (page.status_code, page.content) == (200, PAGE)
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Content-Disposition"] == "inline"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "private, no-cache"
    assert page.headers["X-Robots-Tag"] == "noindex"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "sandbox" in page.headers["Content-Security-Policy"]


def test_the_key_is_not_in_the_link(keyed: Keyed) -> None:
    key = key_of(keyed.service)
    with keyed.with_key(key) as holder:
        url = link_to(holder, finished_job(holder))
    assert key.rpartition("_")[2] not in url
    assert "esp_" not in url


def test_other_files_are_downloads_and_take_ranges(keyed: Keyed) -> None:
    with keyed.as_project() as project:
        job_id = finished_job(project)
        onnx, odd = (link_to(project, job_id, name) for name in ("pruned.onnx", "größe v2.json"))
    part = httpx.get(onnx, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, b"small")
    assert part.headers["Content-Disposition"] == 'attachment; filename="pruned.onnx"'
    assert httpx.get(onnx, headers={"If-None-Match": part.headers["ETag"]}).status_code == 304
    assert httpx.get(odd).content == b"{}"


def test_it_only_reads(keyed: Keyed) -> None:
    url, _ = link_and_job(keyed)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        problem(httpx.request(method, url), 405, "method_not_allowed")


def test_it_opens_nothing_else(keyed: Keyed) -> None:
    """Neither by another name nor for another job, nor does it stand for a key anywhere else."""
    url, job_id = link_and_job(keyed)
    with keyed.as_project() as project:
        other_job = finished_job(project)
    query = urlsplit(url).query
    problem(httpx.get(url.replace("report.html", "pruned.onnx")), 403, "link_invalid")
    problem(httpx.get(url.replace("report.html", "report%2Ehtml%00")), 403, "link_invalid")
    problem(httpx.get(url.replace(job_id, other_job)), 403, "link_invalid")
    problem(httpx.get(url.replace(job_id, f"job_{1:032x}")), 403, "link_invalid")
    problem(httpx.get(url.replace(job_id, "%FF%ED%A0%80")), 403, "link_invalid")
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/report.html", f"/v1/jobs/{job_id}/artifacts/report.html"):
        problem(keyed.service.http.get(f"{path}?{query}"), 401, "key_missing")


@pytest.mark.parametrize(
    "query",
    [
        {"expires": "4000000000"},
        {"expires": "1"},
        {"signature": "0" * 64},
        {"key": f"key_{1:032x}"},
        {"key": ""},
        {"key": "\0"},
    ],
)
def test_what_is_signed_cannot_be_changed(keyed: Keyed, query: dict[str, str]) -> None:
    url, _ = link_and_job(keyed)
    problem(httpx.get(changed(url, **query)), 403, "link_invalid")


@pytest.mark.parametrize(
    "change",
    [
        lambda signature: signature[:-1],
        lambda signature: signature[:32],
        lambda signature: signature.upper() if signature.upper() != signature else "",
        lambda signature: signature + "0",
        lambda signature: signature[:-1] + ("0" if signature[-1] != "0" else "1"),
        lambda _: "é" * 64,
    ],
)
def test_a_signature_is_right_as_a_whole_or_wrong(keyed: Keyed, change: Callable[[str], str]) -> None:
    url, _ = link_and_job(keyed)
    signature = dict(parse_qsl(urlsplit(url).query))["signature"]
    problem(httpx.get(changed(url, signature=change(signature))), 403, "link_invalid")


def test_without_a_signature_it_is_said_what_is_missing(keyed: Keyed) -> None:
    url, _ = link_and_job(keyed)
    faults = problem(httpx.get(changed(url, signature="")), 422, "invalid_request")["errors"]
    assert [fault["location"] for fault in faults] == ["query.signature"]
    problem(httpx.get(changed(url, expires="9" * 40)), 422, "invalid_request")


def test_it_expires(keyed: Keyed) -> None:
    _, job_id = link_and_job(keyed)
    with keyed.service.database.session(read_only=True) as session:
        link, path = SharedLinkRepository(session).sign(job_id, "report.html", 0)
    assert isinstance(link, SharedLink)
    problem(keyed.service.http.get(path), 410, "link_expired")


def test_it_ends_with_the_key_that_made_it(keyed: Keyed) -> None:
    with keyed.as_project() as admin:
        job_id = finished_job(admin)
        made = admin.http.post("/v1/keys", json={"name": "reader", "scopes": ["read"]}).json()
        with keyed.with_key(made["key"]) as reader:
            url = link_to(reader, job_id)
        httpx.get(url).raise_for_status()
        with keyed.service.database.session() as session:
            session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(expires_at=database_now(-1)))
        problem(httpx.get(url), 403, "link_revoked")
        with keyed.service.database.session() as session:
            session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(expires_at=None))
        httpx.get(url).raise_for_status()
        admin.http.delete(f"/v1/keys/{made['id']}").raise_for_status()
        problem(httpx.get(url), 403, "link_revoked")


def test_it_ends_with_its_project(keyed: Keyed) -> None:
    url, _ = link_and_job(keyed)
    with keyed.service.database.session() as session:
        session.execute(update(Project).values(enabled=False))
    problem(httpx.get(url), 403, "link_revoked")
    with keyed.service.database.session() as session:
        session.execute(update(Project).values(enabled=True))
    httpx.get(url).raise_for_status()


def test_another_project_signs_with_another_secret(keyed: Keyed) -> None:
    _, job_id = link_and_job(keyed)
    others = project_of(keyed.service, "others")
    with keyed.service.database.session() as session:
        secret = session.get_one(Project, others).link_secret
    forged = SharedLink(job_id, "report.html", 4_000_000_000).path(secret)
    problem(keyed.service.http.get(forged), 403, "link_invalid")


def test_links_are_made_by_those_who_may_read(keyed: Keyed) -> None:
    _, job_id = link_and_job(keyed)
    path = f"/v1/jobs/{job_id}/artifacts/report.html/link"
    with keyed.as_project(DEFAULT_PROJECT, Scope.WRITE) as writer:
        problem(writer.http.post(path), 403, "scope_missing")
    with keyed.as_project(DEFAULT_PROJECT, Scope.READ) as reader:
        assert reader.http.post(path).status_code == 200
        problem(reader.http.post(path, json={"seconds": 86_401}), 422, "invalid_request")
        problem(reader.http.post(path, json={"seconds": 0}), 422, "invalid_request")
        missing = reader.http.post(f"/v1/jobs/{job_id}/artifacts/nothing.bin/link")
        problem(missing, 404, "artifact_not_found")


def test_links_use_up_a_share_of_their_own(sqlite_url: str, serve: Serve) -> None:
    with keyed_service(serve, sqlite_url, rate_limit_per_minute=20) as keyed:
        url, job_id = link_and_job(keyed)
        answers = [httpx.get(url).status_code for _ in range(21)]
        assert answers == [200] * 20 + [429]
        with keyed.as_project() as project:
            assert project.http.get(f"/v1/jobs/{job_id}").is_success


def test_the_public_address_is_used_where_it_is_known(sqlite_url: str, serve: Serve) -> None:
    with keyed_service(serve, sqlite_url, public_url="https://espalier.example/prune/") as keyed:
        url, _ = link_and_job(keyed)
        path = url.removeprefix("https://espalier.example/prune")
        assert path.startswith("/v1/shared/job_")
        assert keyed.service.http.get(path).content == PAGE


def test_the_command_line_prints_and_opens_links(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(job_commands.typer, "launch", opened.append)
    key = key_of(keyed.service)
    with keyed.with_key(key) as project:
        job_id = finished_job(project)
    environment = {"ESPALIER_URL": keyed.service.url, "ESPALIER_API_KEY": key}
    printed = CliRunner().invoke(app, ["link", job_id, "pruned.onnx", "--minutes", "5"], env=environment)
    assert httpx.get(printed.stdout.strip()).content == FILES["pruned.onnx"]
    reported = CliRunner().invoke(app, ["report", job_id, "--open"], env=environment)
    assert reported.exit_code == 0, reported.output
    assert [httpx.get(url).content for url in opened] == [PAGE]
    assert opened[0] in reported.stderr


def test_signatures_stay_out_of_the_log_of_requests() -> None:
    def told(path: str) -> str:
        arguments = ("127.0.0.1:1", "GET", path, "1.1", 200)
        record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', arguments, None)
        assert WithoutSignatures().filter(record)
        return record.getMessage()

    assert "signature" not in told("/v1/shared/job_1/report.html?expires=1&signature=abc")
    assert "/v1/shared/job_1/report.html HTTP" in told("/v1/shared/job_1/report.html?expires=1&signature=abc")
    assert "?limit=1" in told("/v1/jobs?limit=1")


def test_a_rotated_key_keeps_its_links(keyed: Keyed) -> None:
    key = key_of(keyed.service)
    with keyed.with_key(key) as holder:
        url = link_to(holder, finished_job(holder))
    with keyed.service.database.of_project(DEFAULT_PROJECT).session() as session:
        keys = ApiKeyRepository(session)
        for each in keys.list():
            keys.rotate(each, 0)
    httpx.get(url).raise_for_status()
