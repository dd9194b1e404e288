"""`espalier download` of jobs that have nothing to fetch."""

import sys

import pytest

from espalier.cli import main
from espalier.client import Client
from models_store.documents.job_spec import Budget, JobSpec
from tests.api.running_api import Service


def new_job(service: Service) -> str:
    with Client(service.url) as client:
        return client.create_job(JobSpec(model_id=service.ready_model(), budget=Budget(macs_ratio=0.5))).id


@pytest.fixture
def downloaded(sqlite_service: Service, tmp_path, monkeypatch, capsys):
    def run(job_id: str) -> str:
        folder = tmp_path / "out"
        command = ["espalier", "download", job_id, "--to", str(folder), "--url", sqlite_service.url]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        assert not folder.exists()
        return " ".join(capsys.readouterr().err.split())

    return run


def test_a_failed_job_has_no_files_and_it_is_said_why(sqlite_service, downloaded):
    job_id = new_job(sqlite_service)
    assert f"{job_id} has no files; its state is queued" in downloaded(job_id)
    sqlite_service.worker.fail(sqlite_service.worker.claim())
    told = downloaded(job_id)
    assert f"{job_id} has no files; its state is failed, Node 'n' is unknown." in told
    assert "Export it again." in told


def test_a_cancelled_job_may_be_tried_again(sqlite_service, downloaded):
    job_id = new_job(sqlite_service)
    with Client(sqlite_service.url) as client:
        client.cancel(job_id)
    assert f"Try it again: espalier retry {job_id}" in downloaded(job_id)
