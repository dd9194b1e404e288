"""Preparing for the cut, and winning back what it cost."""

from worker.engine.recovery.bn_reestimation import reestimate_norms
from worker.engine.recovery.calibration import calibration_batches
from worker.engine.recovery.checkpoint import Checkpoints, Interrupted
from worker.engine.recovery.finetune import finetune
from worker.engine.recovery.reconstruction import LayerFit, reconstruct
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.recovery.selective_decay import SelectiveDecay, doomed_weights
from worker.engine.recovery.training_curve import Epoch, Training
from worker.engine.recovery.training_options import FinetuneOptions

RECOVERIES.load(__name__)

__all__ = [
    "RECOVERIES",
    "Checkpoints",
    "Epoch",
    "FinetuneOptions",
    "Interrupted",
    "LayerFit",
    "SelectiveDecay",
    "Training",
    "calibration_batches",
    "doomed_weights",
    "finetune",
    "reconstruct",
    "reestimate_norms",
]
