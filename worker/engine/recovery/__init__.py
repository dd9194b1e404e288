"""Preparing for the cut, and winning back what it cost."""

from worker.engine.recovery.bn_reestimation import reestimate_norms
from worker.engine.recovery.calibration import TOO_LARGE, calibration_batches, single_images
from worker.engine.recovery.checkpoint import Checkpoints, Interrupted
from worker.engine.recovery.finetune import finetune
from worker.engine.recovery.imitation import outputs_beside
from worker.engine.recovery.objective import needs_teacher
from worker.engine.recovery.reconstruction import LayerFit, reconstruct
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.recovery.selective_decay import SelectiveDecay, doomed_weights
from worker.engine.recovery.training_curve import Epoch, Training
from worker.engine.recovery.training_options import FinetuneOptions
from worker.engine.recovery.walk import Rerun, Walk

RECOVERIES.load(__name__)

__all__ = [
    "RECOVERIES",
    "TOO_LARGE",
    "Checkpoints",
    "Epoch",
    "FinetuneOptions",
    "Interrupted",
    "LayerFit",
    "Rerun",
    "SelectiveDecay",
    "Training",
    "Walk",
    "calibration_batches",
    "doomed_weights",
    "finetune",
    "needs_teacher",
    "outputs_beside",
    "reconstruct",
    "reestimate_norms",
    "single_images",
]
