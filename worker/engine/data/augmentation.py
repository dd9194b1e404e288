"""Random crops and flips of whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_ALL = slice(None)


@dataclass(frozen=True)
class Augmentation:
    """Crop after padding with zeros by `crop_padding` pixels on each side; flip half of the images left to right."""

    crop_padding: int = 0
    horizontal_flip: bool = False

    def __call__(
        self, images: np.ndarray, rng: np.random.Generator, batch: int | None = None, part: slice = _ALL
    ) -> np.ndarray:
        """images (B, H, W, C) -> (B, H, W, C), one crop and flip for each image. Where they are a `part` of a larger
        `batch`, they get what they would have got in it."""
        if not self.crop_padding and not self.horizontal_flip:
            return images
        count, height, width, _ = images.shape
        batch = count if batch is None else batch
        pad = self.crop_padding
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else images
        rows = np.arange(height) + rng.integers(0, 2 * pad + 1, (batch, 1))[part]  # (B, H)
        columns = np.broadcast_to(np.arange(width), (count, width))
        if self.horizontal_flip:
            columns = np.where(rng.random((batch, 1))[part] < 0.5, columns[:, ::-1], columns)
        columns = columns + rng.integers(0, 2 * pad + 1, (batch, 1))[part]  # (B, W)
        cropped: np.ndarray = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return cropped
