"""What a training can be told, as a job's `finetuning` and as the engine takes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from worker.engine.methods import Options
from worker.engine.recovery.distillation import DistillationOptions


class TrainingOptions(Options):
    """Fields of a job's `finetuning`."""

    epochs: int = Field(default=3, ge=0, le=1000, description="Passes over the training images; 0 skips the training.")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="With a cosine schedule.")
    learning_rate: float = Field(default=0.01, gt=0, le=10, description="At the start.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of sgd.")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="Of kernels and matrices only.")
    gradient_clipping: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="Where no norm follows a layer, the gradient of each of its filters has at most this share of the "
        "filter's norm, the last layers aside (Brock et al., ICML 2021, equation 3); 0 clips nothing.",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Spread over all classes.")
    batch_size: int = Field(default=128, ge=1, le=65_536, description="Images per step.")
    crop_padding: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Random crop after padding by this many pixels; recovery looks at such images, too.",
    )
    horizontal_flip: bool = Field(
        default=False, description="Half of the images, by lot, are mirrored; for recovery, too."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="auto: a short trial on the device chooses what is fastest before a training of many steps; others "
        "are in float32. bfloat16 is mixed precision, channels last; weights stay float32.",
    )


class FinetuneOptions(TrainingOptions, DistillationOptions):
    """`device` "auto" is the GPU where one is. `distillation` is the teacher's share of the loss, where there is one: 0
    is labels alone, 1 leaves the labels out of training; without labels the original is all that is learnt from."""

    seed: int = 0
    device: str = "auto"
