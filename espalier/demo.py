"""The whole way on a real model: train, export, upload, prune, finetune, fetch, and check what was promised."""

import importlib.util
import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from espalier import live, tables
from espalier.client import Client
from espalier.errors import EspalierError
from espalier.serve import Service
from models_store.documents.job_spec import Budget, Finetuning, JobSpec, Measuring
from models_store.documents.report import Report

MACS_RATIO = 0.4
MAX_ACCURACY_LOSS = 0.01
MAX_PROOF_ERROR = 1e-4
FINETUNING = Finetuning(epochs=10, learning_rate=0.02, batch_size=64)
MEASURING = Measuring(batch_sizes=(1, 32), rounds=60)


@dataclass(frozen=True)
class Check:
    """Something promised, and whether it came true."""

    promise: str
    seen: str
    holds: bool


def run(output: Path, console: Console) -> bool:
    """Leave pruned.onnx, report.html and report.json in `output`; whether every check holds.

    Beside them: original.onnx and digits.npz, what they were made from.
    """
    began = time.monotonic()
    _require(("torch", "sklearn", "onnxruntime"))
    output.mkdir(parents=True, exist_ok=True)
    _train(output, console)
    report = _prune(output, console)
    console.print(tables.summary(report), soft_wrap=False)
    checks = check(report, output)
    for each in checks:
        mark = "[green]✓[/green]" if each.holds else "[red]✗[/red]"
        console.print(f" {mark} {each.promise}: {each.seen}")
    console.print(f"\n[bold]{escape(str(output.absolute()))}[/bold] holds:")
    for file in sorted(path for path in output.iterdir() if path.is_file()):
        console.print(f"  {escape(file.name):<15} {file.stat().st_size:>10,} bytes")
    console.print(f"All of it took {time.monotonic() - began:.0f} s.")
    return all(each.holds for each in checks)


def _require(modules: tuple[str, ...]) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise EspalierError(
            "demo_needs_more",
            f"the demo trains and runs a network, for which {', '.join(missing)} must be installed",
            "In a checkout of this repository: pip install -c constraints.txt '.[worker,demo]'",  # no index has it
        )


def _train(output: Path, console: Console) -> None:
    """original.onnx and digits.npz."""
    from espalier import demo_network

    data = demo_network.digits()
    data.save(output / "digits.npz")
    told = f"Training a residual network on {len(data.x):,} of scikit-learn's scanned digits"
    with console.status(told) as status:
        network = demo_network.train(
            data,
            on_epoch=lambda epoch, loss: status.update(f"{told}: epoch {epoch}/{demo_network.EPOCHS}, loss {loss:.4f}"),
        )
    demo_network.export(network, output / "original.onnx")
    reached = demo_network.accuracy(output / "original.onnx", data.x_test, data.y_test)
    console.print(f"{told}: {reached:.2%} of the {len(data.x_test):,} others are right.")


def _prune(output: Path, console: Console) -> Report:
    """The job's report; its files in `output`. The service's own folder is kept only if something fails."""
    data_dir = output / "service"
    settings = {
        **os.environ,
        "ESPALIER_CHILD_THREADS": "1",
        "ESPALIER_AUTH": "off",
    }  # layers this small gain nothing from more
    with ExitStack() as running:
        with console.status("Starting the service"):
            service = running.enter_context(Service(data_dir, port=0, settings=settings))
            client = running.enter_context(Client(service.url, api_key=""))
        console.print(f"The service is ready at {service.url}.")
        with console.status("Uploading model and data"):
            model = client.wait_until_ready(client.upload_model(output / "original.onnx", name="digits-resnet"))
            dataset = client.wait_until_ready(client.upload_dataset(output / "digits.npz", name="digits"))
        console.print(f"Uploaded and inspected: {model.id}, {dataset.id}.")
        spec = JobSpec(
            model_id=model.id,
            dataset_id=dataset.id,
            budget=Budget(macs_ratio=MACS_RATIO),
            finetuning=FINETUNING,
            measuring=MEASURING,
            label="demo",
        )
        job = client.create_job(spec)
        live.follow(client.events(job.id), job.id, console)
        report = client.result(job.id)
        for name in ("pruned.onnx", "report.html"):
            client.download(job.id, name, output / name)
        (output / "report.json").write_text(report.model_dump_json(indent=2))
    shutil.rmtree(data_dir)
    return report


def check(report: Report, output: Path) -> list[Check]:
    """Each promise of the demo against what was measured."""
    from espalier import demo_network

    assert report.accuracy is not None  # noqa: S101  the job had a dataset
    gained = report.accuracy.final.top1 - report.accuracy.original.top1
    ratio = report.pruned.macs / report.original.macs
    error = report.proof.max_relative_error
    data = demo_network.digits()
    again = demo_network.accuracy(output / "pruned.onnx", data.x_test, data.y_test)
    return [
        Check(
            f"accuracy within {100 * MAX_ACCURACY_LOSS:.0f} point",
            f"{100 * gained:+.2f} points",
            gained >= -MAX_ACCURACY_LOSS,
        ),
        Check(f"at most {MACS_RATIO:.0%} of the MACs", f"{ratio:.1%}", ratio <= MACS_RATIO),
        Check(
            f"surgery proved to {MAX_PROOF_ERROR:.0e}",
            f"relative error {error:.1e}",
            report.proof.passed and error <= MAX_PROOF_ERROR,
        ),
        Check(
            "pruned.onnx gives the reported accuracy in ONNX Runtime alone",
            f"{again:.2%}",
            abs(again - report.accuracy.final.top1) < 1e-9,
        ),
    ]
