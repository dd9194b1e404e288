"""The files that a job hands out beside pruned.onnx: float16, INT8, safetensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from models_store.documents.export_spec import ExportedFile, FileKind, MissingFile
from worker.engine.errors import EngineError
from worker.engine.graph import load_model, sample_inputs
from worker.engine.measure.forked import in_fork
from worker.engine.measure.images import filled_up
from worker.runner.accuracy import accuracy
from worker.runner.diagnosis import BrokenPromise, is_out_of_memory
from worker.runner.workbench import Workbench

TOLERANCE = 0.05
"""Of float16, relative to the largest output: more is a mistake, not rounding."""
_BATCH = 32
_COMPARED_BATCHES = 16
"""Of the few images that each comparison runs at a time: what is off in an INT8 file depends on the image."""
_MOST_MINUTES = 10


class _Wanted(NamedTuple):
    kind: FileKind
    name: str
    make: Callable[[Workbench, Path, Path], float | None]
    """Writes the file made of the pruned one; how far its outputs are off, where it has any."""


def further_files(bench: Workbench, pruned: Path) -> Iterator[ExportedFile | MissingFile]:
    """Make what the job asks for out of the pruned model. A file that cannot be made is left out, with the reason: the
    model that it was to be made of is finished, and is what the job was for."""
    wanted = bench.spec.export
    for each in _FILES:
        if getattr(wanted, each.kind):
            yield _made(bench, pruned, each)


def _made(bench: Workbench, pruned: Path, wanted: _Wanted) -> ExportedFile | MissingFile:
    path = bench.folder.out / wanted.name
    try:
        error = wanted.make(bench, pruned, path)
        top1 = _top1(bench, path) if error is not None else None
    except (EngineError, BrokenPromise) as failure:
        if is_out_of_memory(failure):
            raise
        path.unlink(missing_ok=True)
        return MissingFile(name=wanted.name, kind=wanted.kind, reason=str(failure))
    return ExportedFile(name=wanted.name, kind=wanted.kind, max_relative_error=error, top1=top1)


def _half_precision(bench: Workbench, pruned: Path, path: Path) -> float:
    from worker.engine.export import to_half_precision, too_large_for_float16

    model = load_model(pruned)
    inputs = bench.real_inputs() or [sample_inputs(model, bench.spec.seed)]
    too_large = too_large_for_float16(model, inputs)
    onnx.save(to_half_precision(model, keep_io=not bench.spec.export.float16_io, too_large=too_large), path)
    error = _compared(pruned, path, inputs)
    if error > TOLERANCE:
        raise BrokenPromise(
            "half_precision_failed", f"The float16 model differs from the float32 one by {error:.2e}, relative."
        )
    return error


def _quantised(bench: Workbench, pruned: Path, path: Path) -> float:
    from worker.engine.export import quantise

    full_range = bench.spec.export.int8_full_range
    onnx.save(quantise(load_model(pruned), _calibration(bench), bench.folder.tmp, full_range=full_range), path)
    return _compared(pruned, path, bench.real_inputs(_COMPARED_BATCHES))


def _compared(pruned: Path, path: Path, inputs: list[dict[str, np.ndarray]]) -> float:
    """The largest relative difference of their outputs. Raises EngineError where the file does not run."""
    from worker.engine.export import agreement

    def found() -> float:
        return agreement(pruned, path, inputs).max_relative_error

    if not _survived(found):
        raise EngineError(
            "runtime_died",
            f"ONNX Runtime dies while it loads or runs the file, or takes more than {_MOST_MINUTES} minutes.",
            "Use pruned.onnx, which it runs.",
        )
    return found()


def _survived(work: Callable[[], object]) -> bool:
    """Whether a process comes to the end of it, be it an exception: that comes again in this one."""

    def attempt() -> str:
        with suppress(Exception):
            work()
        return ""

    return in_fork(attempt, seconds=60 * _MOST_MINUTES) is not None


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


def _state_dict(bench: Workbench, pruned: Path, path: Path) -> None:
    from worker.engine.export import check_slim_network, save_state_dict

    if bench.model_file.format != "torchvision":
        raise EngineError(
            "no_state_dict",
            "The model was uploaded as ONNX: no torchvision architecture is known to hold its weights.",
            "Leave export.safetensors out, or upload the weights as safetensors of a torchvision architecture.",
        )
    model, architecture = load_model(pruned), bench.model_file.details["architecture"]
    save_state_dict(bench.original, model, architecture, path)
    check_slim_network(model, architecture, path)


def _top1(bench: Workbench, path: Path) -> float | None:
    if bench.dataset is None or not bench.dataset.labelled:
        return None
    found, _ = accuracy(bench, path)
    return found.top1


_FILES = (
    _Wanted("float16", "pruned.fp16.onnx", _half_precision),
    _Wanted("int8", "pruned.int8.onnx", _quantised),
    _Wanted("safetensors", "pruned.safetensors", _state_dict),
)
