"""Whatever the API can do, its clients can: every route is asked for by a method of the client and by a command."""

import json
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from espalier.cli import app
from espalier.client import AsyncClient, Client
from espalier.client.synchronous import sending
from models_store.documents.job_spec import Budget, JobSpec
from tests.api.owned import BUDGET, NPZ, owned_things
from tests.api.reports import report_document
from tests.api.running_api import Service
from tests.api.store_side import onnx_bytes

ELSEWHERE = {
    "POST /v1/models": "a form, for browsers and curl: clients send the same by PUT or in pieces",
    "POST /v1/datasets": "likewise",
    "OPTIONS /v1/uploads": "asked by other tus clients; ours knows this service",
    "HEAD /v1/uploads/{upload_id}": "what GET says, for other tus clients",
    "POST /v1/hooks/{source}/{pipeline_id}": "called by GitHub, GitLab and others, which sign it",
    "GET /v1/shared/{job_id}/{name}": "opened by browsers; `link` makes the link",
    "GET /healthz": "a probe's; `readiness` says more",
    "GET /metrics": "for Prometheus",
}
"""Routes that neither client nor command line ask for, and why."""

BY_FILE = {"GET /v1/jobs/{job_id}/report.html": "`espalier download JOB report.html` fetches the same page"}
"""Nor does the command line for these."""

Call = Callable[[Client, dict[str, str], Path], Any]

CALLS: tuple[Call, ...] = (
    lambda client, ids, folder: client.upload_model(folder / "net.onnx"),
    lambda client, ids, folder: client.upload_model(folder / "large.onnx"),
    lambda client, ids, folder: client.upload_dataset(folder / "data.npz"),
    lambda client, ids, folder: list(client.models(state="ready", created_before=None)),
    lambda client, ids, folder: list(client.datasets(name="data")),
    lambda client, ids, folder: client.get_model(ids["model"]),
    lambda client, ids, folder: client.get_dataset(ids["dataset"]),
    lambda client, ids, folder: client.model_graph(ids["model"]),
    lambda client, ids, folder: client.get_upload(ids["upload_id"]),
    lambda client, ids, folder: client.delete_upload(ids["upload_id"]),
    lambda client, ids, folder: client.methods("criterion"),
    lambda client, ids, folder: list(client.jobs(kind="prune")),
    lambda client, ids, folder: client.retry(client.cancel(new_job(client, ids)).id),
    lambda client, ids, folder: list(client.events(ids["job_id"])),
    lambda client, ids, folder: client.log(ids["job_id"]),
    lambda client, ids, folder: client.result(ids["job_id"]),
    lambda client, ids, folder: client.html_report(ids["job_id"]),
    lambda client, ids, folder: httpx.get(client.link(ids["job_id"]).url).raise_for_status(),
    lambda client, ids, folder: client.download(ids["job_id"], "pruned.onnx", folder / "pruned.onnx"),
    lambda client, ids, folder: client.create_pipeline({"name": "q", "job": {"budget": BUDGET}}),
    lambda client, ids, folder: list(client.pipelines()),
    lambda client, ids, folder: client.get_pipeline(ids["pipeline_id"]),
    lambda client, ids, folder: client.summary(client.start_run(ids["pipeline_id"])),
    lambda client, ids, folder: client.junit(next(client.runs(ids["pipeline_id"], state="running"))),
    lambda client, ids, folder: client.get_run(ids["pipeline_id"], ids["run_id"]),
    lambda client, ids, folder: client.delete_pipeline(ids["pipeline_id"]),
    lambda client, ids, folder: client.create_webhook("https://example.org/"),
    lambda client, ids, folder: list(client.webhooks(enabled=True)),
    lambda client, ids, folder: client.get_webhook(ids["webhook_id"]),
    lambda client, ids, folder: client.test_webhook(ids["webhook_id"]),
    lambda client, ids, folder: list(client.deliveries(ids["webhook_id"])),
    lambda client, ids, folder: client.get_delivery(ids["webhook_id"], ids["delivery_id"]),
    lambda client, ids, folder: client.redeliver(ids["webhook_id"], ids["delivery_id"]),
    lambda client, ids, folder: client.change_webhook(ids["webhook_id"], description="changed", enabled=False),
    lambda client, ids, folder: client.delete_webhook(ids["webhook_id"]),
    lambda client, ids, folder: client.create_key("k"),
    lambda client, ids, folder: list(client.api_keys()),
    lambda client, ids, folder: client.rotate_key(client.get_key(ids["key_id"]).id, 0),
    lambda client, ids, folder: client.revoke_key(ids["key_id"]),
    lambda client, ids, folder: client.usage(),
    lambda client, ids, folder: list(client.changes(action="create_job")),
    lambda client, ids, folder: client.create_project("vision"),
    lambda client, ids, folder: list(client.projects()),
    lambda client, ids, folder: client.get_project(ids["project_id"]),
    lambda client, ids, folder: client.change_project(ids["project_id"], job_minutes_limit=5),
    lambda client, ids, folder: client.create_project_key(ids["project_id"], "k"),
    lambda client, ids, folder: client.readiness(),
    lambda client, ids, folder: client.delete_dataset(ids["dataset"]),
    lambda client, ids, folder: [client.cancel(job.id) for job in client.jobs(state="queued")],
    lambda client, ids, folder: client.delete_model(ids["model"]),
    lambda client, ids, folder: client.delete_job(ids["job_id"]),
)

COMMANDS = """
upload {folder}/net.onnx --no-wait
upload {folder}/large.onnx --no-wait
upload {folder}/data.npz --no-wait
models list --state ready --since 2020-01-01 --limit 1
models show {model}
models graph {model}
datasets list --format npz --before 2100-01-01T00:00:00Z
datasets show {dataset}
uploads show {upload_id}
uploads remove {upload_id}
methods criterion
prune {model} --macs-ratio 0.5 --no-wait --label one
jobs list --state queued --kind prune --label one --model {model}
jobs show {job_id}
logs {job_id}
link {job_id} pruned.onnx --minutes 5
cancel {queued}
retry {queued}
watch {job_id}
report {job_id}
download {job_id} pruned.onnx --to {folder}/out
pipelines add {folder}/pipeline.json
pipelines list
pipelines show {pipeline_id}
pipelines runs {pipeline_id}
pipelines show {pipeline_id} {run_id}
webhooks add https://example.org/
webhooks list
webhooks show {webhook_id}
webhooks test {webhook_id}
webhooks deliveries {webhook_id}
webhooks delivery {webhook_id} {delivery_id}
webhooks redeliver {webhook_id} {delivery_id}
webhooks change {webhook_id} --target https://example.org/b --event job.failed --description d --disable
webhooks remove {webhook_id}
keys create k
keys list
keys show {key_id}
keys rotate {key_id}
keys revoke {key_id}
usage
audit --action create_job --limit 2
projects create vision
projects list
projects show {project_id}
projects change {project_id} --stored-bytes 5000000 --job-minutes default
projects key {project_id} admin
status
datasets remove {unused_dataset}
models remove {unused_model}
jobs remove {job_id}
ci {pipeline_id} --junit {folder}/gates.xml --summary {folder}/gates.md
pipelines remove {pipeline_id}
"""


def new_job(client: Client, ids: dict[str, str]) -> str:
    return client.create_job(JobSpec(model_id=ids["model"], budget=Budget.model_validate(BUDGET))).id


def routes(service: Service) -> set[str]:
    paths = service.http.get("/openapi.json").raise_for_status().json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files to send, one of which is large enough to be sent in pieces."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sending, "SMALL_BYTES", 200)
    (tmp_path / "net.onnx").write_bytes(onnx_bytes())
    (tmp_path / "large.onnx").write_bytes(onnx_bytes("x" * 200))
    (tmp_path / "data.npz").write_bytes(NPZ)
    (tmp_path / "pipeline.json").write_text(json.dumps({"name": "q", "job": {"budget": BUDGET}}))
    return tmp_path


def walked(service: Service, walk: Callable[[dict[str, str]], None]) -> set[str]:
    """Routes that the walk reached, with things of its own for it."""
    ids = owned_things(service)
    before = counts(service.http)
    walk(ids)
    return {route for route, count in counts(service.http).items() if count > before.get(route, 0)}


def counts(http: httpx.Client) -> dict[str, float]:
    """How often each route has answered with anything but an error."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(http.get("/metrics").raise_for_status().text):
        for sample in family.samples:
            if sample.name == "espalier_requests_total" and sample.labels["status"] < "400":
                route = f"{sample.labels['method']} {sample.labels['route']}"
                found[route] = found.get(route, 0) + sample.value
    return found


def test_every_route_is_a_method_of_the_client(sqlite_service: Service, folder: Path) -> None:
    def walk(ids: dict[str, str]) -> None:
        with Client(sqlite_service.url) as client:
            for call in CALLS:
                call(client, ids, folder)

    assert walked(sqlite_service, walk) | set(ELSEWHERE) >= routes(sqlite_service)


def test_both_clients_have_the_same_methods() -> None:
    public = [{name for name in dir(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert public[0] == public[1]


@contextmanager
def a_worker_at_work(service: Service) -> Iterator[None]:
    """Every job succeeds as soon as it is queued."""
    stopped = threading.Event()

    def waiting(kind: str) -> bool:
        return bool(service.http.get("/v1/jobs", params={"state": "queued", "kind": kind}).json()["items"])

    def work() -> None:
        while not stopped.wait(0.05):
            while waiting("inspect"):
                service.worker.inspect()
            while waiting("prune"):
                service.worker.succeed(service.worker.claim(), report_document())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def test_every_route_is_a_command(sqlite_service: Service, folder: Path) -> None:
    """Each prints what its route says, as JSON where it is asked for, and ends with 0."""

    def walk(ids: dict[str, str]) -> None:
        queued = sqlite_service.http.post("/v1/jobs", json={"model_id": ids["model"], "budget": BUDGET}).json()["id"]
        unused = {
            "unused_model": sqlite_service.ready_model(),
            "unused_dataset": sqlite_service.http.put("/v1/datasets/unused", content=NPZ).json()["id"],
        }
        sqlite_service.worker.inspect()
        for command in COMMANDS.strip().splitlines():
            words = shlex.split(command.format(folder=folder, queued=queued, **unused, **ids))
            with a_worker_at_work(sqlite_service) if words[0] == "ci" else nullcontext():
                ended = CliRunner().invoke(app, [*words, "--url", sqlite_service.url, "--json"])
            assert ended.exit_code == 0, (command, ended.output, ended.exception)
            for document in documents(ended.stdout):
                assert document, command

    assert walked(sqlite_service, walk) | set(ELSEWHERE) | set(BY_FILE) >= routes(sqlite_service)


def documents(printed: str) -> list[object]:
    """One JSON document, or one in each line."""
    try:
        return [json.loads(printed)]
    except ValueError:
        return [json.loads(line) for line in printed.splitlines()]


def test_the_exceptions_are_routes(sqlite_service: Service) -> None:
    assert set(ELSEWHERE) | set(BY_FILE) <= routes(sqlite_service)
