"""What a training went through: a row per epoch."""

from __future__ import annotations

from dataclasses import dataclass

from worker.engine.recovery.arithmetic import FLOAT32, Arithmetic


@dataclass(frozen=True)
class Epoch:
    """One row of the training curve. Epoch 0 is the model as it came; its train_loss is measured, not trained.
    Without labels there is no accuracy, and the loss is the share of the original's variance that is missed."""

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_top1: float | None
    seconds: float

    @property
    def merit(self) -> tuple[float, float]:
        """Accuracy first, then loss."""
        return self.validation_top1 or 0.0, -self.validation_loss


@dataclass(frozen=True)
class Training:
    device: str
    train_samples: int
    validation_samples: int
    best_epoch: int
    epochs: tuple[Epoch, ...]
    arithmetic: Arithmetic = FLOAT32
    processes: int = 1
    retreats: int = 0
    """How often the training diverged, and went on from its best weights at a tenth of the learning rate."""
    judged_on_both: bool = False
    """Whether the best epoch and epoch 0 were compared on training images besides, as epoch 0 knew the validation."""
