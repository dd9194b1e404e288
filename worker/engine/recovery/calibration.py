"""Calibration images: a few training images, as many as may be held in memory while a network is walked through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from worker.engine.data import Augmentation, Split
from worker.engine.errors import EngineError
from worker.engine.recovery.walk import Walk
from worker.engine.torch_form import TorchForm
from worker.engine.torch_form.failures import as_engine_error

BATCH_SIZE = 32
MAX_HELD_BYTES = 2 * 2**30
MIN_IMAGES = 2
"""One to fit, one to check."""
ONE_BY_ONE = 8
"""Images at most, where they are run anew for every layer."""
AS_THEY_ARE = Augmentation()
TOO_LARGE = "activations_too_large"
"""Code of the error where so few images fit."""


def calibration_batches(
    split: Split,
    samples: int,
    forms: Sequence[TorchForm],
    seed: int = 0,
    max_held_bytes: int = MAX_HELD_BYTES,
    augmentation: Augmentation = AS_THEY_ARE,
) -> list[torch.Tensor]:
    """Batches of at most `samples` images, drawn from the split by `seed`, in the layout of the model's input.

    Give the `augmentation` of a training that follows: its norms go by the statistics of such images, and weights that
    were fitted to others would have to be learnt anew. `forms` are those that will be walked at once: of large
    activations, fewer images are taken. A split of a single image gives that. Raises EngineError TOO_LARGE where not
    even two images fit, and another where a form does not run on one.
    """
    first, _ = next(split.batches(1))
    hint = "Export it with a dynamic batch axis, or prune without recovery on calibration images."
    with as_engine_error("torch_form_failed", "The model does not run on a single image", hint):
        per_image = sum(_held_bytes(form, torch.from_numpy(first)) for form in forms)
    fitting = min(samples, len(split), max_held_bytes // max(per_image, 1))
    if fitting < min(MIN_IMAGES, len(split)):
        raise EngineError(
            TOO_LARGE,
            f"The activations of one image take {per_image / 2**20:.0f} MiB: too few images can be held to calibrate.",
            "Prune without recovery on calibration images, or with a smaller input size.",
        )
    together = min(BATCH_SIZE, max(fitting // 2, 1)) if all(form.takes_batches for form in forms) else 1
    return _drawn(split, fitting, together, seed, augmentation)


def single_images(
    split: Split, samples: int, seed: int = 0, augmentation: Augmentation = AS_THEY_ARE
) -> list[torch.Tensor]:
    """A few of the same images, at most `samples`, each a batch: for a Rerun, where even two cannot be held."""
    return _drawn(split, min(samples, len(split), ONE_BY_ONE), 1, seed, augmentation)


def _drawn(split: Split, count: int, together: int, seed: int, augmentation: Augmentation) -> list[torch.Tensor]:
    batches, left = [], count
    for images, _ in split.batches(together, rng=np.random.default_rng([seed, 4]), augmentation=augmentation):
        batches.append(torch.from_numpy(images[:left]))
        left -= len(batches[-1])
        if left <= 0:
            break
    return batches


def _held_bytes(form: TorchForm, image: torch.Tensor) -> int:
    walk = Walk(form.module, [image])
    walk.finish()
    return walk.peak_bytes
