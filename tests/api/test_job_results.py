"""What a job leaves behind: its report as JSON and as a page, and its files, whole or by range."""

import base64
import hashlib

import pytest

from app.byte_ranges import RangeNotSatisfiable, parse
from tests.api.answers import problem
from tests.api.running_api import Service
from tests.api.store_side import BAD_MODEL

REPORT = {"version": 1, "warnings": ["a <b>bold</b> one"]}
PAGE = b"<!doctype html><title>report</title>"
MODEL = bytes(range(256)) * 100
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.fixture
def done(sqlite_service: Service) -> tuple[Service, str]:
    return succeeded(sqlite_service)


def succeeded(service: Service) -> tuple[Service, str]:
    job_id = service.start_job()
    service.worker.succeed(service.worker.claim(), REPORT, {"pruned.onnx": MODEL, "report.html": PAGE})
    return service, f"/v1/jobs/{job_id}"


def test_a_job_that_succeeded_links_to_what_it_made(service: Service) -> None:
    service, path = succeeded(service)
    links = service.http.get(path).json()["links"]
    assert service.http.get(links["report"]).json() == REPORT
    assert service.http.get(links["report_html"]).content == PAGE
    files = service.http.get(links["artifacts"]).json()["items"]
    assert [(file["name"], file["size_bytes"]) for file in files] == [("pruned.onnx", 25600), ("report.html", 36)]
    assert files[0]["sha256"] == hashlib.sha256(MODEL).hexdigest()


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("text/html", True),
        (BROWSER, True),
        ("text/html;q=0.2, application/json;q=0.9", False),
        ("text/html;q=0.9, application/json;q=0.2", True),
        ("text/html;q=x", False),
        ("text/*", True),
        ("", False),
    ],
)
def test_accept_chooses_the_form_of_the_report(done: tuple[Service, str], accept: str | None, html: bool) -> None:
    service, path = done
    headers = {"Accept": accept} if accept is not None else {}
    response = service.http.get(f"{path}/report", headers=headers)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/html" if html else "application/json")
    assert "Accept" in response.headers["Vary"]


def test_a_report_is_not_sent_twice(done: tuple[Service, str]) -> None:
    service, path = done
    for name, accept in (("report", "*/*"), ("report", "text/html"), ("report.html", "*/*")):
        first = service.http.get(f"{path}/{name}", headers={"Accept": accept})
        tag = first.headers["ETag"]
        assert first.headers["Cache-Control"] == "private, no-cache"
        for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            headers = {"Accept": accept, "If-None-Match": header}
            unchanged = service.http.get(f"{path}/{name}", headers=headers)
            assert (unchanged.status_code, unchanged.content, unchanged.headers["ETag"]) == (304, b"", tag)
        changed = service.http.get(f"{path}/{name}", headers={"Accept": accept, "If-None-Match": '"other"'})
        assert (changed.status_code, changed.content) == (200, first.content)


def test_a_report_page_cannot_run_scripts(done: tuple[Service, str]) -> None:
    service, path = done
    policy = service.http.get(f"{path}/report.html").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "sandbox" in policy


def test_there_is_no_report_before_the_end_nor_after_a_failure(service: Service) -> None:
    path = f"/v1/jobs/{service.start_job()}"
    links = service.http.get(path).json()["links"]
    assert (links["report"], links["report_html"]) == (None, None)
    for name in ("report", "report.html"):
        assert "events" in problem(service.http.get(f"{path}/{name}"), 409, "report_not_ready")["hint"]
    assert service.http.get(f"{path}/artifacts").json() == {"items": []}
    service.worker.fail(service.worker.claim())
    for name in ("report", "report.html"):
        body = problem(service.http.get(f"{path}/{name}"), 409, "no_report")
        assert BAD_MODEL.message in body["detail"]
        assert body["hint"] == BAD_MODEL.hint


def test_an_inspection_has_no_report(sqlite_service: Service) -> None:
    sqlite_service.ready_model()
    (job,) = sqlite_service.http.get("/v1/jobs", params={"kind": "inspect"}).json()["items"]
    assert job["links"]["report"] is None
    problem(sqlite_service.http.get(f"/v1/jobs/{job['id']}/report"), 409, "no_report")
    html = sqlite_service.http.get(f"/v1/jobs/{job['id']}/report", headers={"Accept": "text/html"})
    problem(html, 409, "no_report")


def test_a_file_is_downloaded_with_its_digest(done: tuple[Service, str]) -> None:
    service, path = done
    response = service.http.get(f"{path}/artifacts/pruned.onnx")
    assert response.content == MODEL
    digest = hashlib.sha256(MODEL)
    assert response.headers["ETag"] == f'"{digest.hexdigest()}"'
    assert response.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert response.headers["Content-Disposition"] == 'attachment; filename="pruned.onnx"'
    assert response.headers["Content-Length"] == str(len(MODEL))


def test_a_download_is_resumed_where_it_stopped(done: tuple[Service, str]) -> None:
    service, path = done
    url = f"{path}/artifacts/pruned.onnx"
    tag = service.http.get(url).headers["ETag"]
    response = service.http.get(url, headers={"Range": "bytes=1000-", "If-Range": tag})
    assert (response.status_code, response.content) == (206, MODEL[1000:])
    assert response.headers["Content-Range"] == f"bytes 1000-25599/{len(MODEL)}"
    assert response.headers["Content-Length"] == str(len(MODEL) - 1000)
    changed = service.http.get(url, headers={"Range": "bytes=1000-", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, MODEL)
    beyond = service.http.get(url, headers={"Range": "bytes=25600-"})
    problem(beyond, 416, "range_not_satisfiable")
    assert beyond.headers["Content-Range"] == f"bytes */{len(MODEL)}"
    unchanged = service.http.get(url, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=10-", (10, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-30", (70, 100)),
        ("bytes=-300", (0, 100)),
        ("Bytes = 1 - 2", (1, 3)),
        ("bytes=-", None),
        ("bytes=20-10", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=\u0663-", None),
        ("bytes=0-" + "9" * 5000, None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_ranges(header: str | None, part: tuple[int, int] | None) -> None:
    assert parse(header, 100) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=1000-2000", "bytes=-0"])
def test_ranges_beyond_the_end(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse(header, 100)


@pytest.mark.parametrize("name", ["none.onnx", "..%2Fespalier.db", "%00", "pruned.onnx%00"])
def test_other_files_are_404(done: tuple[Service, str], name: str) -> None:
    service, path = done
    response = service.http.get(f"{path}/artifacts/{name}")
    assert response.json()["code"] in ("artifact_not_found", "not_found")
    problem(response, 404, response.json()["code"])
