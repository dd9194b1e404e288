"""Winning back what the cut cost."""

from worker.engine.recovery.finetune import Epoch, FinetuneOptions, Training, finetune

__all__ = ["Epoch", "FinetuneOptions", "Training", "finetune"]
