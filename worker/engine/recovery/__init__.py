"""Winning back what the cut cost."""

from worker.engine.recovery.checkpoint import Checkpoints, Interrupted
from worker.engine.recovery.finetune import Epoch, FinetuneOptions, Training, finetune

__all__ = ["Checkpoints", "Epoch", "FinetuneOptions", "Interrupted", "Training", "finetune"]
