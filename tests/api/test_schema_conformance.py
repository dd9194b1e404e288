"""schemathesis against the running service: what the OpenAPI document says is what the service does.

All of its checks and all of its phases: examples, boundary values, random values both right and wrong, and sequences
of calls that follow the document's links.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT
from tests.api.keyed import keyed_service
from tests.api.reports import report_document
from tests.api.running_api import Serve, Service

CASES, MANY_CASES = 2, 100
# Whether a well-formed upload is a model at all, whether fields suit each other, whether an Idempotency-Key was used
# before or a URL may be called, no schema can say.
REFUSED_FOR_THEIR_CONTENT = {
    "/v1/models": [400, 415, 422],
    "/v1/models/{model}": [400, 415, 422],
    "/v1/datasets": [400, 415, 422],
    "/v1/datasets/{dataset}": [400, 415, 422],
    "/v1/uploads": [400, 413, 422, 460],
    "/v1/uploads/{upload_id}": [400, 410, 413, 415, 422, 423, 460],
    "/v1/jobs": [422],
    "/v1/pipelines": [422],
    "/v1/pipelines/{pipeline_id}/runs": [422],
    "/v1/hooks/{source}/{pipeline_id}": [422],
    "/v1/webhooks": [422],
    "/v1/webhooks/{webhook_id}": [422],
    "/v1/webhooks/{webhook_id}/test": [422],
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": [422],
    "/v1/jobs/{job_id}/retry": [422],
    "/v1/keys": [422],
    "/v1/keys/{key_id}/rotate": [422],
    "/v1/projects": [422],
    "/v1/projects/{project_id}/keys": [422],
}
# The protocol of these has refusals of its own.
TUS = ("/v1/uploads", "/v1/uploads/{upload_id}")
REFUSED_BY_TUS = [400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 423, 460]
BODY_OF_TUS = (
    "import schemathesis\n"
    'schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")\n'
)
USUAL = ["2xx", "3xx", 401, 403, 404, 409, 429]


def configuration(ids: dict[str, str]) -> str:
    """schemathesis.toml: ids that exist are used in half of the cases."""
    dictionaries = "\n".join(f"{name} = {{values = {json.dumps([value])}}}" for name, value in ids.items())
    parameters = "\n".join(f'"path.{name}" = {{dictionary = "{name}", probability = 0.5}}' for name in ids)
    operations = "\n".join(
        f'[[operations]]\ninclude-path = "{path}"\n'
        f"[operations.checks.positive_data_acceptance]\nexpected-statuses = {json.dumps(USUAL + statuses)}\n"
        for path, statuses in REFUSED_FOR_THEIR_CONTENT.items()
    )
    operations += "\n".join(
        f'[[operations]]\ninclude-path = "{path}"\n'
        f"[operations.checks.negative_data_rejection]\nexpected-statuses = {REFUSED_BY_TUS}\n"
        f"[operations.checks.missing_required_header]\nexpected-statuses = {REFUSED_BY_TUS}\n"
        for path in TUS
    )
    # A job that never ends has an event stream that never ends.
    operations += '[[operations]]\ninclude-path = "/v1/jobs/{job_id}/events"\nmax-stream-events = 1\n'
    return f'hooks = "hooks.py"\n[dictionaries]\n{dictionaries}\n[parameters]\n{parameters}\n{operations}'


def existing(service: Service) -> dict[str, str]:
    """A job with a report, its model, a pipeline, a webhook, by the names of the path parameters they fill."""
    job_id = service.start_job()
    service.worker.succeed(service.worker.claim(), report_document(), {"pruned.onnx": b"x", "report.html": b"x"})
    model_id = service.http.get(f"/v1/jobs/{job_id}").json()["model_id"]
    pipeline = {"name": "p", "job": {"model_id": model_id, "budget": {"macs_ratio": 0.5}}, "gates": []}
    pipeline_id = service.http.post("/v1/pipelines", json=pipeline).json()["id"]
    run_id = service.http.post(f"/v1/pipelines/{pipeline_id}/runs", json={}).json()["id"]
    webhook_id = service.http.post("/v1/webhooks", json={"url": "https://example.org/"}).json()["id"]
    delivery_id = service.http.post(f"/v1/webhooks/{webhook_id}/test").json()["id"]
    announced = {"Tus-Resumable": "1.0.0", "Upload-Length": "50", "Upload-Metadata": "kind bW9kZWw="}
    upload_id = service.http.post("/v1/uploads", headers=announced).json()["id"]
    key_id = service.http.post("/v1/keys", json={"name": "k"}).json()["id"]
    project_id = service.http.post("/v1/projects", json={"name": "p"}).json()["id"]
    return {
        "upload_id": upload_id,
        "key_id": key_id,
        "project_id": project_id,
        "model": model_id,
        "job_id": job_id,
        "name": "pruned.onnx",
        "pipeline_id": pipeline_id,
        "run_id": run_id,
        "webhook_id": webhook_id,
        "delivery_id": delivery_id,
    }


def conform(service: Service, folder: Path, cases: int) -> None:
    """Run every check; fails with what schemathesis found, each finding with a curl command that shows it."""
    (folder / "hooks.py").write_text(BODY_OF_TUS)
    (folder / "schemathesis.toml").write_text(configuration(existing(service)))
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", folder / "schemathesis.toml", "run"]
    key = service.http.headers.get("Authorization")
    options = ["--header", f"Authorization: {key}"] if key else []
    options += ["--seed", "1", "--max-examples", str(cases), "--request-timeout", "20", "--continue-on-failure"]
    run = subprocess.run(
        [*command, f"{service.url}/openapi.json", *options], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    assert "Stateful" in run.stdout


@pytest.mark.slow  # minutes: `make test-schema`, which .ci/run calls
@pytest.mark.timeout(900)
def test_the_service_does_what_its_document_says(sqlite_url: str, serve: Serve, tmp_path: Path) -> None:
    """With keys, so that no route can forget to ask for one."""
    with (
        keyed_service(serve, sqlite_url, rate_limit_per_minute=0) as keyed,
        keyed.as_project(DEFAULT_PROJECT, *Scope) as service,
    ):
        conform(service, tmp_path, CASES)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_service_does_what_its_document_says_at_length(database_url: str, serve: Serve, tmp_path: Path) -> None:
    with serve(database_url) as service:
        conform(service, tmp_path, MANY_CASES)
