"""What holds for every answer: problem documents, headers, and no service to pages of other sites."""

import re

import pytest
from answers import problem
from running_api import Serve, Service
from store_side import onnx_bytes


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/models/a/b/c", "/docs/assets/nothing.js"])
def test_unknown_paths_are_problems(sqlite_service: Service, path: str) -> None:
    problem(sqlite_service.http.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/jobs", "GET, POST"),
        ("POST", "/v1/models/x", "GET, PUT, DELETE"),
        ("PUT", "/healthz", "GET"),
        ("POST", "/docs/assets/swagger-ui.css", "GET"),
    ],
)
def test_wrong_methods_are_problems_that_list_the_right_ones(
    sqlite_service: Service, method: str, path: str, allowed: str
) -> None:
    response = sqlite_service.http.request(method, path)
    problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == allowed


def test_a_failure_of_our_own_shows_a_number_and_no_innards(sqlite_service: Service) -> None:
    sqlite_service.blobs.incoming_dir.rmdir()
    response = sqlite_service.http.put("/v1/models/net", content=onnx_bytes())
    body = problem(response, 500, "internal_error")
    assert re.fullmatch(r"Incident [0-9a-f]{12}\.", body["detail"])
    assert str(sqlite_service.blobs.incoming_dir) not in response.text
    assert response.headers["X-Content-Type-Options"] == "nosniff"


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
