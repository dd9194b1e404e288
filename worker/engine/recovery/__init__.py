"""Winning back what the cut cost."""

from worker.engine.recovery.bn_reestimation import reestimate_norms
from worker.engine.recovery.calibration import calibration_batches
from worker.engine.recovery.checkpoint import Checkpoints, Interrupted
from worker.engine.recovery.finetune import Epoch, FinetuneOptions, Training, finetune
from worker.engine.recovery.reconstruction import LayerFit, reconstruct

__all__ = [
    "Checkpoints",
    "Epoch",
    "FinetuneOptions",
    "Interrupted",
    "LayerFit",
    "Training",
    "calibration_batches",
    "finetune",
    "reconstruct",
    "reestimate_norms",
]
