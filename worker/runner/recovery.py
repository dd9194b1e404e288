"""Winning back what a cut cost on calibration images, without labels or training, as a job asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import onnx

from models_store.documents.report import Parity, ReconstructedLayer, RecoveryResult
from worker.engine.data import Augmentation, Dataset
from worker.engine.errors import EngineError
from worker.engine.surgery import Plan
from worker.runner.workbench import Workbench

if TYPE_CHECKING:
    import torch

    from worker.engine.recovery import Walk
    from worker.engine.torch_form import TorchForm


@dataclass(frozen=True)
class Recovery:
    """The form that was changed, which had agreed with ONNX Runtime before, what was done, and why not more."""

    form: TorchForm
    parity: Parity
    result: RecoveryResult
    warnings: tuple[str, ...]


def reason_for_none(bench: Workbench) -> str | None:
    """Why a job has no such recovery; None where it has."""
    if bench.order.dataset is None:
        return "The job has no dataset."
    asked_for = bench.spec.reconstructs or bench.spec.recovery.reestimates
    return None if asked_for else "The job asks for none."


def recover(bench: Workbench, cut: onnx.ModelProto, plan: Plan, on_progress: Callable[[float], None]) -> Recovery:
    """Least-squares reconstruction of the model cut by the plan, or BN re-estimation. What it is refitted to is what
    was cut: to another network it would undo what training before the cut did.

    A single training image is none to fit on and another to check on: layers keep their weights, with a warning, or an
    EngineError where the job asks for the reconstruction by name.
    """
    # Imported here: a job without data needs no torch, which takes seconds to load.
    from worker.engine.recovery import reconstruct, reestimate_norms
    from worker.runner.torch_model import checked_form

    if bench.dataset is None:
        raise ValueError("a job without a dataset has no calibration images")
    wanted = bench.spec.recovery
    warnings: list[str] = []
    refits = bench.spec.reconstructs and len(bench.dataset.train) > 1
    if bench.spec.reconstructs and not refits:
        if wanted.reconstruction:
            raise _single_image()
        warnings.append(f"No layer was refitted to make up for the cut: {_single_image().message}")
    pruned, parity = checked_form(cut, bench.spec.seed)
    layers: tuple[ReconstructedLayer, ...] = ()
    batches: list[torch.Tensor] = []
    norms = 0
    if refits:
        original, _ = checked_form(bench.model_to_cut, bench.spec.seed)
        batches, walk_of = _calibration(bench, bench.dataset, (original, pruned), warnings)
        fits = reconstruct(bench.analysis, plan, original, pruned, batches, on_progress, walk_of)
        layers = tuple(ReconstructedLayer(**asdict(fit)) for fit in fits)
        norms = len(pruned.averages) // 2
    elif wanted.reestimates:
        batches, walk_of = _calibration(bench, bench.dataset, (pruned,), warnings)
        norms = reestimate_norms(pruned, batches, on_progress, walk_of)
    images = sum(len(batch) for batch in batches)
    return Recovery(pruned, parity, RecoveryResult(images=images, norms=norms, layers=layers), tuple(warnings))


def _calibration(
    bench: Workbench, dataset: Dataset, forms: tuple[TorchForm, ...], warnings: list[str]
) -> tuple[list[torch.Tensor], type[Walk]]:
    """Batches of images as trainings show them, and how the forms are walked through on them."""
    from worker.engine.recovery import TOO_LARGE, Rerun, Walk, calibration_batches, single_images

    samples, seed, training = bench.spec.recovery.calibration_images, bench.spec.seed, bench.spec.finetuning
    augmentation = Augmentation(training.crop_padding, training.horizontal_flip)
    try:
        return calibration_batches(dataset.train, samples, forms, seed, augmentation=augmentation), Walk
    except EngineError as error:
        if error.code != TOO_LARGE:
            raise
        batches = single_images(dataset.train, samples, seed, augmentation)
        warnings.append(
            f"Recovery looked at {len(batches)} training images, one at a time, and computed their activations anew "
            f"for every layer, which takes long. {error.message}"
        )
        bench.voice.log(warnings[-1], "warning")
        return batches, Rerun


def _single_image() -> EngineError:
    return EngineError(
        "too_few_images",
        "Reconstruction fits on some training images and checks on others; there is a single one.",
        "Give the job more images, or leave recovery.reconstruction out.",
    )
