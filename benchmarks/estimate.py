"""How long an estimate job takes for ResNet-50 at 224x224 without data, on two cores (issue 5).

    python -m benchmarks.estimate [MODEL.onnx]

The job runs as a worker's child runs it, the start of its process and loading torch included. The network has random
weights: time does not depend on them. Wall time is what the claim is about; CPU time is shown beside it, because a busy
machine stretches the former. `results/estimate.json` gets both.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torchvision

from benchmarks import machine, results
from models_store.documents.estimate_report import EstimateReport
from models_store.documents.job_spec import EstimateSpec, JobKind
from worker import sandbox
from worker.order import InputFile, Order
from worker.work_folder import WorkFolder

FILE = results.FOLDER / "estimate.json"
GOAL_S = 60.0
CORES = 2


def exported() -> bytes:
    """ResNet-50 of torchvision, BatchNormalization kept, any batch size."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, 224, 224),),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return file.getvalue()


def run(model: bytes, folder: Path) -> dict[str, Any]:
    """One estimate in a child of its own: wall and CPU seconds, and what it found."""
    work = WorkFolder(folder)
    work.create()
    path = work.inputs / "model"
    path.write_bytes(model)
    reading, writing = os.pipe()
    order = Order(
        job_id=f"job_{0:032x}",
        attempt=1,
        kind=JobKind.ESTIMATE,
        spec=EstimateSpec(kind="estimate", model_id=f"mdl_{0:032x}"),
        model=InputFile(path=path, name="resnet50", format="onnx", sha256="0" * 64, size_bytes=len(model), details={}),
        dataset=None,
        device="cpu",
        threads=CORES,
        checkpoint_s=30,
        sandbox=sandbox.best_tier(),
        limits=sandbox.Limits(memory_bytes=None, file_bytes=2**34),
        parent_pid=os.getpid(),
        events_fd=writing,
    )
    work.order.write_text(order.model_dump_json())
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "worker.runner", str(work.root)],
        env=sandbox.environment(os.environ, work.tmp, CORES),
        cwd=work.tmp,
        pass_fds=(writing,),
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        told.read()
    if child.wait() != 0:
        raise SystemExit((work.failure.read_text() if work.failure.exists() else "") or f"exit code {child.returncode}")
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = EstimateReport.model_validate_json(work.result.read_bytes())
    return {
        "wall_s": wall,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_memory_bytes": after.ru_maxrss * 1024,
        "stage_seconds": report.stage_seconds,
        "layers": len(report.sensitivity),
        "measured_on": report.measured_on,
        "latency_ms": report.original_latency_ms,
        "curve": [json.loads(point.model_dump_json()) for point in report.curve],
        "forecast": json.loads(report.forecast.model_dump_json()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", help="instead of torchvision's ResNet-50")
    given = parser.parse_args().model
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    model = given.read_bytes() if given else exported()
    with tempfile.TemporaryDirectory() as folder:
        row = run(model, Path(folder) / "work")
    name = given.stem if given else "ResNet-50 (224x224)"
    claim = results.Claim(
        f"an estimate of {name} without data on two cores, from the start of its process: "
        f"{row['layers']} sets of layers at three ratios, eight budgets",
        5,
        f"{row['wall_s']:.1f} s ({row['cpu_s']:.1f} s of CPU)",
        f"< {GOAL_S:g} s",
        row["wall_s"] < GOAL_S,
    )
    if given is None:
        described = machine.describe("onnxruntime", "torch", "numpy")
        results.write(FILE, {"machine": described, "row": row}, [claim])
    print(f"{claim.name}: {claim.value} (goal {claim.goal})")
    for stage, seconds in row["stage_seconds"].items():
        print(f"  {stage}: {seconds:.1f} s")


if __name__ == "__main__":
    main()
