"""Calibration images: a few training images, as many as may be held in memory while a network is walked through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from worker.engine.data import Split
from worker.engine.errors import EngineError
from worker.engine.recovery.walk import Walk
from worker.engine.torch_form import TorchForm
from worker.engine.torch_form.failures import as_engine_error

BATCH_SIZE = 32
MAX_HELD_BYTES = 2 * 2**30
MIN_IMAGES = 2
"""One to fit, one to check."""


def calibration_batches(
    split: Split, samples: int, forms: Sequence[TorchForm], seed: int = 0, max_held_bytes: int = MAX_HELD_BYTES
) -> list[torch.Tensor]:
    """Batches of at most `samples` images, drawn from the split by `seed`, in the layout of the model's input.

    `forms` are those that will be walked at once: of large activations, fewer images are taken. Raises EngineError
    where not even two images fit, and where a form does not run on one.
    """
    rng = np.random.default_rng([seed, 4])
    first, _ = next(split.batches(1))
    hint = "Export it with a dynamic batch axis, or prune without recovery on calibration images."
    with as_engine_error("torch_form_failed", "The model does not run on a single image", hint):
        per_image = sum(_held_bytes(form, torch.from_numpy(first)) for form in forms)
    fitting = min(samples, len(split), max_held_bytes // max(per_image, 1))
    if fitting < MIN_IMAGES:
        raise EngineError(
            "activations_too_large",
            f"The activations of one image take {per_image / 2**20:.0f} MiB: too few images can be held to calibrate.",
            "Prune without recovery on calibration images, or with a smaller input size.",
        )
    batches, left = [], fitting
    together = min(BATCH_SIZE, fitting // 2) if all(form.takes_batches for form in forms) else 1
    for images, _ in split.batches(together, rng=rng):
        batches.append(torch.from_numpy(images[:left]))
        left -= len(batches[-1])
        if left <= 0:
            break
    return batches


def _held_bytes(form: TorchForm, image: torch.Tensor) -> int:
    walk = Walk(form.module, [image])
    walk.finish()
    return walk.peak_bytes
