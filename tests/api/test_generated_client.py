"""A client that a generator makes of the OpenAPI document, against the running service."""

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.api.running_api import Service
from tests.api.store_side import onnx_bytes

# Neither the bytes of tus nor files of any type are known to the generator by themselves.
SETTINGS = {
    "content_type_overrides": {
        "application/offset+octet-stream": "application/octet-stream",
        "application/xml": "text/plain",
        "*/*": "application/octet-stream",
    },
    "post_hooks": [],
}


@pytest.fixture
def generated(sqlite_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the package that was generated."""
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "openapi.json").write_text(sqlite_service.http.get("/openapi.json").text)
    generator = Path(sys.executable).with_name("openapi-python-client")
    options = ["--path", "openapi.json", "--config", "settings.json", "--output-path", "generated", "--meta", "none"]
    made = subprocess.run(
        [generator, "generate", *options], cwd=tmp_path, capture_output=True, text=True, env=os.environ
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stdout + made.stderr, made.stdout + made.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "generated"
    for name in [name for name in sys.modules if name.split(".")[0] == "generated"]:
        del sys.modules[name]


def part(*names: str) -> Any:
    module: ModuleType = importlib.import_module(".".join(names))
    return module


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # `1and` in what was generated
def test_a_generated_client_uploads_creates_lists_and_gets(generated: str, sqlite_service: Service) -> None:
    client = part(generated).Client(base_url=sqlite_service.url, raise_on_unexpected_status=True)
    models, types = part(generated, "models"), part(generated, "types")

    form = models.UploadModelModelForm(
        file=types.File(payload=io.BytesIO(onnx_bytes()), file_name="net.onnx", mime_type="application/octet-stream")
    )
    model = part(generated, "api.models.upload_model").sync(client=client, body=form)
    assert model.name == "net.onnx"
    sqlite_service.worker.inspect()
    ready = part(generated, "api.models.get_model").sync(model.id, client=client)
    assert (ready.state, ready.inspection.params) == ("ready", 448)

    create = part(generated, "api.jobs.create_job").sync
    spec = models.JobSpec(model_id=model.id, budget=models.Budget(macs_ratio=0.5), label="generated")
    job = create(client=client, body=spec, idempotency_key="once")
    assert create(client=client, body=spec, idempotency_key="once").id == job.id
    sqlite_service.worker.succeed(sqlite_service.worker.claim(), files={"pruned.onnx": b"small"})
    done = part(generated, "api.jobs.get_job").sync(job.id, client=client)
    assert (done.state, done.label) == ("succeeded", "generated")
    page = part(generated, "api.jobs.list_jobs").sync(client=client, label="generated")
    assert [each.id for each in page.items] == [job.id]
    artifacts = part(generated, "api.jobs.list_artifacts").sync(job.id, client=client)
    assert [artifact.name for artifact in artifacts.items] == ["pruned.onnx"]
    file = part(generated, "api.jobs.get_artifact").sync(job.id, "pruned.onnx", client=client)
    assert file == b"small"

    problem = part(generated, "api.jobs.get_job").sync(f"job_{0:032x}", client=client)
    assert (problem.code, problem.status) == ("job_not_found", 404)
    pipeline = models.NewPipeline(
        name="p", job=models.JobTemplate(budget=models.Budget(macs_ratio=0.5), model_id=model.id)
    )
    made = part(generated, "api.pipelines.create_pipeline").sync(client=client, body=pipeline)
    assert [each.id for each in part(generated, "api.pipelines.list_pipelines").sync(client=client).items] == [made.id]
