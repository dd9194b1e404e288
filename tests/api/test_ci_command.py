"""`espalier ci` and `espalier pipelines` against the real API: verdicts become exit codes, JUnit XML and Markdown."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from espalier.cli import app
from tests.api.reports import report_document
from tests.api.running_api import Service

PIPELINE = {
    "name": "nightly",
    "model_name": "net",
    "gates": [{"metric": "top1", "min": 0.85}],
}


def espalier(service: Service, *arguments: object, **variables: str) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, words, env={"ESPALIER_URL": service.url, "COLUMNS": "200"} | variables)


def when_it_comes(service: Service, act: Callable[[], None]) -> threading.Thread:
    """Play the worker in a thread of its own, as soon as there is a job."""

    def work() -> None:
        while service.http.get("/v1/jobs", params={"state": "queued"}).json()["items"] == []:
            pass
        act()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.fixture
def pipeline_id(sqlite_service: Service, tmp_path: Path) -> str:
    sqlite_service.ready_model()
    file = tmp_path / "pipeline.json"
    job = {"budget": {"macs_ratio": 0.5}, "dataset_id": sqlite_service.ready_dataset()}
    file.write_text(json.dumps(PIPELINE | {"job": job}))
    added = espalier(sqlite_service, "pipelines", "add", file)
    assert added.exit_code == 0, added.output
    pipeline_id, secret = added.output.split()
    assert secret.startswith("whsec_")
    return pipeline_id


@pytest.mark.parametrize(("top1", "exit_code", "state"), [(0.9, 0, "passed"), (0.8, 1, "failed"), (None, 2, "errored")])
def test_the_verdict_is_the_exit_code(
    sqlite_service: Service, pipeline_id: str, tmp_path: Path, top1: float | None, exit_code: int, state: str
) -> None:
    service = sqlite_service

    def act() -> None:
        claim = service.worker.claim()
        if top1 is None:
            service.worker.fail(claim)
        else:
            service.worker.succeed(claim, report_document(top1=top1))

    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    thread = when_it_comes(service, act)
    arguments = ("ci", pipeline_id, "--junit", tmp_path / "gates.xml", "--commit", "a" * 40)
    ran = espalier(service, *arguments, GITHUB_STEP_SUMMARY=str(summary))
    thread.join()
    assert ran.exit_code == exit_code, ran.output
    assert f"{state}: " in ran.output
    assert f"nightly: {state}" in summary.read_text()
    assert summary.read_text().startswith("before\n")
    junit = (tmp_path / "gates.xml").read_text()
    assert f'failures="{int(exit_code == 1)}" errors="{int(exit_code == 2)}"' in junit
    listed = espalier(service, "pipelines", "runs", pipeline_id, "--json")
    (run,) = [json.loads(line) for line in listed.output.splitlines()]
    assert run["state"] == state
    assert espalier(service, "pipelines", "remove", pipeline_id).exit_code == 0
    assert espalier(service, "pipelines", "list").output == ""


def test_what_cannot_be_known_ends_with_two(sqlite_service: Service, pipeline_id: str, tmp_path: Path) -> None:
    assert espalier(sqlite_service, "ci", "pip_" + "0" * 32).exit_code == 2
    assert espalier(sqlite_service, "ci", pipeline_id, "--model", tmp_path / "missing.onnx").exit_code == 2
    assert espalier(sqlite_service, "ci", pipeline_id, "--url", "http://127.0.0.1:1").exit_code == 2
