"""A growing array of equal images, in memory or, when large, in a file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import numpy as np

MAX_IN_MEMORY_BYTES = 2 * 2**30


class PixelStore:
    """Images appended one by one; `array` gives them all as (N, H, W, C).

    What outgrows `limit` bytes moves to an unnamed file in `folder`, which vanishes with the array that maps it.
    """

    def __init__(self, folder: Path | None = None, limit: int = MAX_IN_MEMORY_BYTES) -> None:
        self._folder, self._limit = folder, limit
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)
        self._count = 0

    def append(self, image: np.ndarray) -> None:
        if self._count and (image.shape != self._shape or image.dtype != self._dtype):
            raise ValueError(f"image {self._count} is {image.shape} {image.dtype}, not {self._shape} {self._dtype}")
        self._shape, self._dtype = image.shape, image.dtype
        self._count += 1
        content = np.ascontiguousarray(image).data.cast("B")
        if self._file is None and len(self._memory) + len(content) > self._limit:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives as long as its map
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += content
        else:
            self._file.write(content)

    def array(self) -> np.ndarray:
        shape = (self._count, *self._shape)
        if self._file is None:
            return np.frombuffer(self._memory, self._dtype).reshape(shape)
        self._file.flush()
        return np.memmap(self._file, self._dtype, "r", shape=shape)
