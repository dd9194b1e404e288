"""The files that a job hands out beside pruned.onnx: float16, INT8, safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from models_store.documents.export_spec import ExportedFile
from worker.engine.errors import EngineError
from worker.engine.graph import load_model, sample_inputs
from worker.engine.measure.images import filled_up
from worker.runner.accuracy import accuracy
from worker.runner.diagnosis import BrokenPromise
from worker.runner.workbench import Workbench

FLOAT16, INT8, SAFETENSORS = "pruned.fp16.onnx", "pruned.int8.onnx", "pruned.safetensors"
TOLERANCE = 0.05
"""Of float16, relative to the largest output: more is a mistake, not rounding."""
_BATCH = 32


def further_files(bench: Workbench, pruned: Path) -> Iterator[ExportedFile]:
    """Make what the job asks for out of the pruned model. Raises EngineError where it cannot be made."""
    wanted = bench.spec.export
    if wanted.float16:
        yield _half_precision(bench, pruned)
    if wanted.int8:
        yield _quantised(bench, pruned)
    if wanted.safetensors:
        yield _state_dict(bench, pruned)


def _half_precision(bench: Workbench, pruned: Path) -> ExportedFile:
    from worker.engine.export import agreement, to_half_precision

    path = bench.folder.out / FLOAT16
    model = load_model(pruned)
    onnx.save(to_half_precision(model, keep_io=not bench.spec.export.float16_io), path)
    found = agreement(pruned, path, bench.real_inputs() or [sample_inputs(model, bench.spec.seed)])
    if found.max_relative_error > TOLERANCE:
        raise BrokenPromise(
            "half_precision_failed",
            f"The float16 model differs from the float32 one by {found.max_relative_error:.2e}, relative.",
        )
    return ExportedFile(
        name=path.name, kind="float16", max_relative_error=found.max_relative_error, top1=_top1(bench, path)
    )


def _quantised(bench: Workbench, pruned: Path) -> ExportedFile:
    from worker.engine.export import agreement, quantise

    path = bench.folder.out / INT8
    full_range = bench.spec.export.int8_full_range
    onnx.save(quantise(load_model(pruned), _calibration(bench), bench.folder.tmp, full_range=full_range), path)
    found = agreement(pruned, path, bench.real_inputs())
    return ExportedFile(
        name=path.name, kind="int8", max_relative_error=found.max_relative_error, top1=_top1(bench, path)
    )


def _calibration(bench: Workbench) -> Iterator[np.ndarray]:
    """Training images in batches of the model's size, the last one filled up, by the job's seed."""
    if bench.dataset is None:
        raise EngineError("needs_data", "INT8 needs images to calibrate on.", "Give the job a dataset.")
    (value,) = bench.analysis.graph.inputs
    fixed = value.type.tensor_type.shape.dim[0].dim_value
    left = bench.spec.export.int8_calibration_images
    for images, _ in bench.dataset.train.batches(fixed or _BATCH, rng=np.random.default_rng([bench.spec.seed, 5])):
        if left <= 0:
            return
        yield filled_up(images, fixed) if fixed else images[:left]
        left -= len(images)


def _state_dict(bench: Workbench, pruned: Path) -> ExportedFile:
    from worker.engine.export import save_state_dict

    if bench.model_file.format != "torchvision":
        raise EngineError(
            "no_state_dict",
            "The model was uploaded as ONNX: no torchvision architecture is known to hold its weights.",
            "Leave export.safetensors out, or upload the weights as safetensors of a torchvision architecture.",
        )
    path = bench.folder.out / SAFETENSORS
    save_state_dict(bench.original, load_model(pruned), bench.model_file.details["architecture"], path)
    return ExportedFile(name=path.name, kind="safetensors", max_relative_error=None, top1=None)


def _top1(bench: Workbench, path: Path) -> float | None:
    if bench.dataset is None or not bench.dataset.labelled:
        return None
    found, _ = accuracy(bench, path)
    return found.top1
