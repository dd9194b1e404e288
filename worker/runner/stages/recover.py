"""recover: win accuracy back on calibration images, without labels: BN re-estimation, least-squares reconstruction."""

from __future__ import annotations

from dataclasses import asdict

import onnx

from models_store.documents.base import Document
from models_store.documents.report import Parity, ReconstructedLayer, RecoveryResult
from worker.engine.graph import load_model
from worker.runner.stages import estimate
from worker.runner.workbench import Stage, Workbench


class Recovered(Document):
    """What was changed in the cut model, whose torch form had agreed with ONNX Runtime."""

    parity: Parity
    recovery: RecoveryResult


def run(bench: Workbench) -> Recovered:
    # Imported here: a job without data needs no torch, which takes seconds to load.
    from worker.engine.recovery import calibration_batches, reconstruct, reestimate_norms
    from worker.runner.torch_model import checked_form

    if bench.dataset is None:
        raise ValueError("a job without a dataset has no calibration images")
    wanted, seed = bench.spec.recovery, bench.spec.seed
    pruned, parity = checked_form(load_model(bench.cut_path), seed)
    layers: tuple[ReconstructedLayer, ...] = ()
    if bench.spec.reconstructs:
        original, _ = checked_form(bench.base, seed)
        batches = calibration_batches(bench.dataset.train, wanted.calibration_images, (original, pruned), seed)
        plan = bench.read(estimate.STAGE).plan(bench.analysis)
        fits = reconstruct(bench.analysis, plan, original, pruned, batches, bench.voice.progress)
        layers = tuple(ReconstructedLayer(**asdict(fit)) for fit in fits)
        norms = len(pruned.averages) // 2
    else:
        batches = calibration_batches(bench.dataset.train, wanted.calibration_images, (pruned,), seed)
        norms = reestimate_norms(pruned, batches, bench.voice.progress)
    onnx.save(pruned.write_back(), bench.recovered_path)
    images = sum(len(batch) for batch in batches)
    return Recovered(parity=parity, recovery=RecoveryResult(images=images, norms=norms, layers=layers))


def reason_to_skip(bench: Workbench) -> str | None:
    if bench.order.dataset is None:
        return "The job has no dataset."
    asked_for = bench.spec.reconstructs or bench.spec.recovery.reestimates
    return None if asked_for else "The job asks for none."


STAGE = Stage("recover", Recovered, run, reason_to_skip)
