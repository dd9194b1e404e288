"""recover: win accuracy back on calibration images, without labels: BN re-estimation, least-squares reconstruction."""

from __future__ import annotations

import onnx

from models_store.documents.base import Document
from models_store.documents.report import Parity, RecoveryResult
from worker.engine.graph import load_model
from worker.runner.recovery import reason_for_none, recover
from worker.runner.stages import estimate
from worker.runner.workbench import Stage, Workbench


class Recovered(Document):
    """What was changed in the cut model, whose torch form had agreed with ONNX Runtime."""

    parity: Parity
    recovery: RecoveryResult
    warnings: tuple[str, ...] = ()


def run(bench: Workbench) -> Recovered:
    plan = bench.read(estimate.STAGE).plan(bench.analysis)
    found = recover(bench, load_model(bench.cut_path), plan, bench.voice.progress)
    onnx.save(found.form.write_back(), bench.recovered_path)
    return Recovered(parity=found.parity, recovery=found.result, warnings=found.warnings)


STAGE = Stage("recover", Recovered, run, reason_for_none)
