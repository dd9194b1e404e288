"""The whole way of a job through the command line and the client, on a network trained here on real digits."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espalier import demo_network
from espalier.client import Client
from models_store.documents.estimate_report import EstimateReport
from models_store.documents.report import Report
from models_store.documents.sweep_report import SweepReport
from tests.e2e.served import ENVIRONMENT, ROOT, Served, run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with original.onnx and digits.npz, as the demo makes them but trained for a moment only."""
    folder = tmp_path_factory.mktemp("digits")
    data = demo_network.digits()
    data.save(folder / "digits.npz")
    demo_network.export(demo_network.train(data, epochs=3), folder / "original.onnx")
    return folder


def test_prune_through_the_command_line(service: Served, inputs: Path, tmp_path: Path):
    pruned = run(
        *("prune", str(inputs / "original.onnx"), "--dataset", str(inputs / "digits.npz"), "--macs-ratio", "0.4"),
        *("--epochs", "2", "--learning-rate", "0.02", "--label", "digits", "--json", "--output", str(tmp_path)),
        ESPALIER_URL=service.url,
    )
    assert pruned.returncode == 0, pruned.stderr
    report = Report.model_validate_json(pruned.stdout)
    assert report.pruned.macs <= 0.4 * report.original.macs
    assert report.proof.passed
    assert report.proof.max_relative_error <= 1e-4
    assert report.accuracy is not None
    assert report.accuracy.final.top1 >= report.accuracy.original.top1 - 0.02
    assert "epoch 1:" in pruned.stderr

    evaluated = subprocess.run(
        [sys.executable, ROOT / "examples" / "evaluate.py", tmp_path / "pruned.onnx", inputs / "digits.npz"],
        capture_output=True, text=True, check=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert float(evaluated.stdout) == pytest.approx(report.accuracy.final.top1, abs=1e-6)
    assert "<svg" in (tmp_path / "report.html").read_text()

    shown = run("report", report.job_id, "--url", service.url)
    assert shown.returncode == 0
    assert f"{report.pruned.macs:,}" in shown.stdout
    watched = run("watch", report.job_id, "--url", service.url, "--json")
    assert json.loads(watched.stdout) == json.loads(pruned.stdout)


def test_rounds_through_the_command_line(service: Served, inputs: Path, tmp_path: Path):
    asked = ("prune", str(inputs / "original.onnx"), "--dataset", str(inputs / "digits.npz"), "--macs-ratio", "0.25")
    schedule = ("--schedule-steps", "2", "--schedule-epochs", "1", "--schedule-path", "linear", "--epochs", "1")
    pruned = run(*asked, *schedule, "--learning-rate", "0.02", "--output", str(tmp_path), ESPALIER_URL=service.url)
    assert pruned.returncode == 0, pruned.stderr
    assert "iterate: done" in pruned.stderr
    report = Report.model_validate_json((tmp_path / "report.json").read_text())
    first, last = report.rounds
    assert 0.5 < first.macs_ratio <= 0.625
    assert last.macs_ratio <= 0.25
    assert last.macs == report.pruned.macs
    assert report.accuracy is not None
    for row in report.rounds:
        assert row.proof.passed
        assert row.top1 is not None
        assert row.top1 >= report.accuracy.original.top1 - 0.03
    assert report.accuracy.final.top1 == last.top1
    assert f"{first.macs_ratio:.1%} of the MACs" in pruned.stdout


def test_a_job_without_data_through_the_client(service: Served, inputs: Path, tmp_path: Path):
    sent = run("upload", str(inputs / "original.onnx"), "--name", "digits", "--url", service.url)
    model_id = sent.stdout.strip()
    started = run("prune", model_id, "--macs-ratio", "0.5", "--no-wait", "--json", "--url", service.url)
    job_id = json.loads(started.stdout)["id"]
    with Client(service.url) as client:
        report = client.wait(job_id)
        client.download(job_id, "pruned.onnx", tmp_path / "pruned.onnx")
    assert (report.accuracy, report.training) == (None, None)
    assert report.proof.passed
    assert (tmp_path / "pruned.onnx").stat().st_size == report.pruned.size_bytes < report.original.size_bytes


def test_an_estimate_through_the_command_line(service: Served, inputs: Path, tmp_path: Path):
    asked = ("estimate", str(inputs / "original.onnx"), "--dataset", str(inputs / "digits.npz"), "--images", "64")
    found = run(
        *asked, "--macs-ratios", "0.6,0.3", "--keep-ratios", "0.5", "--output", str(tmp_path), ESPALIER_URL=service.url
    )
    assert found.returncode == 0, found.stderr
    assert "sensitivity: done" in found.stderr
    assert "norms anew" in found.stdout
    report = EstimateReport.model_validate_json((tmp_path / "report.json").read_text())
    assert [point.macs_goal for point in report.curve] == [0.6, 0.3]
    assert "<svg" in (tmp_path / "report.html").read_text()
    shown = run("report", report.job_id, "--json", "--url", service.url)
    assert EstimateReport.model_validate_json(shown.stdout).model_copy(update={"artifacts": ()}) == report.model_copy(
        update={"artifacts": ()}
    )


def test_a_sweep_through_the_command_line(service: Served, inputs: Path, tmp_path: Path):
    asked = ("sweep", str(inputs / "original.onnx"), "--dataset", str(inputs / "digits.npz"), "--epochs", "0")
    swept = run(*asked, "--macs-ratios", "0.6,0.3", "--output", str(tmp_path), ESPALIER_URL=service.url)
    assert swept.returncode == 0, swept.stderr
    assert "points: done" in swept.stderr
    report = SweepReport.model_validate_json((tmp_path / "report.json").read_text())
    assert [point.state for point in report.points] == ["succeeded", "succeeded"]
    assert report.points[0].job_id in swept.stdout
    assert (tmp_path / "front.svg").read_text().startswith("<svg")
    fetched = run("download", report.points[1].job_id, "pruned.onnx", "--to", str(tmp_path), "--url", service.url)
    assert fetched.returncode == 0
    pruned = (tmp_path / "pruned.onnx").read_bytes()
    assert hashlib.sha256(pruned).hexdigest() == report.points[1].model_sha256


@pytest.mark.skipif(shutil.which("curl") is None, reason="the walk-through is made of curl commands")
def test_a_job_with_nothing_but_curl(service: Served, inputs: Path, tmp_path: Path):
    arguments = inputs / "original.onnx", inputs / "digits.npz", tmp_path / "out"
    walked = subprocess.run(
        ["bash", ROOT / "examples" / "walkthrough.sh", *arguments],
        capture_output=True, text=True, env=ENVIRONMENT | {"ESPALIER_URL": service.url},
    )  # fmt: skip
    assert walked.returncode == 0, walked.stderr
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_text())
    pruned = (tmp_path / "out" / "pruned.onnx").read_bytes()
    assert hashlib.sha256(pruned).hexdigest() in [
        file.sha256 for file in report.artifacts if file.name == "pruned.onnx"
    ]
    assert "event: state" in walked.stdout


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.onnx", b"", "empty"),
        ("text.onnx", b"this is no model", "ONNX"),
        ("weights.pth", b"\x80\x02}q\x00.", "pickle"),
    ],
)
def test_what_cannot_be_used_ends_with_a_reason(service: Served, tmp_path: Path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    sent = run("upload", str(path), "--url", service.url)
    assert sent.returncode == 1
    assert said in sent.stderr
    assert "Traceback" not in sent.stderr


def test_wrong_arguments_are_named_before_anything_is_sent(service: Served, inputs: Path):
    refused = run("prune", str(inputs / "original.onnx"), "--macs-ratio", "2", "--url", service.url)
    assert refused.returncode == 1
    assert "budget.macs_ratio" in refused.stderr
    nobody = run("upload", str(inputs / "original.onnx"), "--url", "http://127.0.0.1:1")
    assert nobody.returncode == 1
    assert "espalier serve" in nobody.stderr
