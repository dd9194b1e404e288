"""/metrics, as a Prometheus server reads it."""

import os

import httpx
from prometheus_client.parser import text_string_to_metric_families

from models_store.documents.access import Scope
from models_store.documents.webhook import Happening
from models_store.presence import Presence
from models_store.projects import DEFAULT_PROJECT
from tests.api.keyed import keyed_service
from tests.api.running_api import Serve, Service
from tests.redis_server import free_port
from tests.waiting import until


def read(http: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = http.get("/metrics").raise_for_status()
    assert response.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(http: httpx.Client, name: str, **labels: str) -> float | None:
    return read(http).get((name, frozenset(labels.items())))


def test_requests_are_counted_by_route_and_not_by_path(sqlite_service: Service) -> None:
    http = sqlite_service.http
    for number in range(3):
        http.get(f"/v1/jobs/job_{number:032x}")
    http.get("/nowhere")
    job = {"method": "GET", "route": "/v1/jobs/{job_id}"}
    assert value(http, "espalier_requests_total", **job, status="404") == 3
    assert value(http, "espalier_request_seconds_count", **job) == 3
    assert value(http, "espalier_request_seconds_bucket", **job, le="+Inf") == 3
    assert value(http, "espalier_requests_total", method="GET", route="(none)", status="404") == 1


def test_methods_that_nobody_knows_share_one_label(sqlite_service: Service) -> None:
    http = sqlite_service.http
    for number in range(3):
        http.request(f"BREW{number}", "/nowhere")
    assert value(http, "espalier_requests_total", method="other", route="(none)", status="404") == 3
    assert not [labels for _, labels in read(http) if any("BREW" in text for _, text in labels)]


def test_jobs_queue_and_deliveries_of_the_whole_service(service: Service) -> None:
    service.http.post("/v1/webhooks", json={"url": "https://example.org/", "events": [Happening.JOB_RUNNING]})
    service.start_job()
    service.start_job()
    service.worker.claim()
    metrics = read(service.http)
    jobs = {
        tuple(sorted(dict(labels).values())): count
        for (name, labels), count in metrics.items()
        if name == "espalier_jobs"
    }
    assert jobs == {("inspect", "succeeded"): 2, ("prune", "queued"): 1, ("prune", "running"): 1}
    assert metrics["espalier_queue", frozenset()] == 1
    assert 0 <= metrics["espalier_queue_oldest_seconds", frozenset()] < 60
    assert metrics["espalier_deliveries_pending", frozenset()] == 1
    assert metrics["espalier_up", frozenset({("part", "database")})] == 1


def test_living_workers_are_counted_and_gone_ones_are_not(sqlite_service: Service) -> None:
    http, url = sqlite_service.http, sqlite_service.settings.redis_url
    parts = [Presence(url, "worker", device, f"{os.getpid()}-{device}") for device in ("cpu", "cuda")]
    for part in parts:
        part.start()
    until(lambda: value(http, "espalier_parts", part="worker", device="cuda") == 1)
    assert value(http, "espalier_parts", part="worker", device="cpu") == 1
    for part in parts:
        part.close()
    until(lambda: value(http, "espalier_parts", part="worker", device="cpu") is None)


def test_a_broker_that_is_away_leaves_the_rest(sqlite_url: str, serve: Serve) -> None:
    with serve(sqlite_url, redis_url=f"redis://127.0.0.1:{free_port()}/0") as service:
        assert value(service.http, "espalier_up", part="broker") == 0
        assert value(service.http, "espalier_queue") == 0


def test_with_keys_it_is_for_whoever_runs_the_service(sqlite_url: str, serve: Serve) -> None:
    with keyed_service(serve, sqlite_url) as keyed:
        assert keyed.service.http.get("/metrics").status_code == 401
        with keyed.as_project() as project:
            assert project.http.get("/metrics").status_code == 403
        with keyed.as_project(DEFAULT_PROJECT, Scope.INSTANCE) as operator:
            assert value(operator.http, "espalier_queue") == 0
    with keyed_service(serve, sqlite_url, metrics_open=True) as keyed:
        assert value(keyed.service.http, "espalier_queue") == 0
