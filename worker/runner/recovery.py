"""Winning back what a cut cost on calibration images, without labels or training, as a job asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import onnx

from models_store.documents.report import Parity, ReconstructedLayer, RecoveryResult
from worker.engine.surgery import Plan
from worker.runner.workbench import Workbench

if TYPE_CHECKING:
    from worker.engine.torch_form import TorchForm


@dataclass(frozen=True)
class Recovery:
    """The form that was changed, which had agreed with ONNX Runtime before, and what was done."""

    form: TorchForm
    parity: Parity
    result: RecoveryResult


def reason_for_none(bench: Workbench) -> str | None:
    """Why a job has no such recovery; None where it has."""
    if bench.order.dataset is None:
        return "The job has no dataset."
    asked_for = bench.spec.reconstructs or bench.spec.recovery.reestimates
    return None if asked_for else "The job asks for none."


def recover(bench: Workbench, cut: onnx.ModelProto, plan: Plan, on_progress: Callable[[float], None]) -> Recovery:
    """Least-squares reconstruction of the model cut by the plan, or BN re-estimation. What it is refitted to is what
    was cut: to another network it would undo what training before the cut did."""
    # Imported here: a job without data needs no torch, which takes seconds to load.
    from worker.engine.recovery import calibration_batches, reconstruct, reestimate_norms
    from worker.runner.torch_model import checked_form

    if bench.dataset is None:
        raise ValueError("a job without a dataset has no calibration images")
    wanted, seed = bench.spec.recovery, bench.spec.seed
    pruned, parity = checked_form(cut, seed)
    layers: tuple[ReconstructedLayer, ...] = ()
    if bench.spec.reconstructs:
        original, _ = checked_form(bench.model_to_cut, seed)
        batches = calibration_batches(bench.dataset.train, wanted.calibration_images, (original, pruned), seed)
        fits = reconstruct(bench.analysis, plan, original, pruned, batches, on_progress)
        layers = tuple(ReconstructedLayer(**asdict(fit)) for fit in fits)
        norms = len(pruned.averages) // 2
    else:
        batches = calibration_batches(bench.dataset.train, wanted.calibration_images, (pruned,), seed)
        norms = reestimate_norms(pruned, batches, on_progress)
    images = sum(len(batch) for batch in batches)
    return Recovery(pruned, parity, RecoveryResult(images=images, norms=norms, layers=layers))
