"""What the two forms of the CIFAR archives have in common.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html
has the layouts. An archive holds batches: data_batch_1 to data_batch_5 and test_batch (CIFAR-10), or train and test
(CIFAR-100), and a file of class names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from worker.engine.data.archive import is_npz, is_tar, is_zip, members
from worker.engine.data.sample import BadFile, Part, Sample

SIDE = 32  # pixels
IMAGE_BYTES = 3 * SIDE * SIDE
MAX_BATCH_BYTES = 256 * 2**20  # CIFAR-100 has its 50,000 training images in one of 148 MiB
MAX_CLASSES = 256  # what the one byte of a binary record can tell apart
MAX_NAME_LENGTH = 200

_LOOKED_AT = 64  # members: the archives have fewer
_BATCH = re.compile(r"data_batch(_\d+)?|test_batch|train|test")
_ADDITIONS = frozenset({"readme.html", "file.txt~"})  # of the archives as they are published


def has_batches(path: Path, suffix: str) -> bool:
    """Whether a zip or tar archive holds CIFAR batches under names of that suffix, seen among its first members."""
    if is_npz(path) or not (is_zip(path) or is_tar(path)):
        return False
    first = itertools.islice(members(path, contents=False), _LOOKED_AT)
    return any(batch_part(member.path, suffix) is not None for member in first)


def batch_part(path: PurePosixPath, suffix: str) -> Part | None:
    """The split that a batch belongs to; None for other files."""
    stem = path.name.removesuffix(suffix)
    if not path.name.endswith(suffix) or not _BATCH.fullmatch(stem):
        return None
    return "test" if stem.startswith("test") else "train"


def is_addition(path: PurePosixPath) -> bool:
    """What lies beside the batches without being one."""
    return path.name in _ADDITIONS or any(part.startswith((".", "__MACOSX")) for part in path.parts)


def samples(name: str, part: Part, labels: np.ndarray, pixels: np.ndarray) -> Iterator[Sample | BadFile]:
    """Images of labels (N,) and pixels (N, 3072) uint8: 1,024 bytes of red, then green, then blue, row by row."""
    images = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    for row, (label, image) in enumerate(zip(labels.tolist(), images, strict=True)):
        yield Sample(f"{name}[{row}]", part, label, image)
