"""CIFAR, the Python version: pickled dicts of `data` (N, 3072) uint8 and `labels`, or `fine_labels` in CIFAR-100.

Nothing is unpickled: see `pickled`. Class names come from the pickle batches.meta or meta.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from worker.engine.data import cifar
from worker.engine.data.archive import Member, members
from worker.engine.data.pickled import UnreadablePickleError, read_pickle
from worker.engine.data.sample import BadFile, ClassNames, DatasetFormat, Item, Part

_NAMES = frozenset({"batches.meta", "meta"})
_LABELS = ("labels", "fine_labels")
_LABEL_NAMES = ("label_names", "fine_label_names")


def read(path: Path) -> Iterator[Item]:
    for member in members(path, max_bytes=cifar.MAX_BATCH_BYTES):
        part = cifar.batch_part(member.path, "")
        if part is None and member.path.name not in _NAMES:
            if not cifar.is_addition(member.path):
                yield BadFile(str(member.path), "it is neither a batch nor a list of class names")
            continue
        try:
            found = _dict(member)
            if part is None:
                yield _class_names(found)
            else:
                yield from _batch(str(member.path), part, found)
        except UnreadablePickleError as error:
            yield BadFile(str(member.path), str(error))


def _dict(member: Member) -> dict[str, object]:
    if member.refused:
        raise UnreadablePickleError(member.refused)
    found = read_pickle(member.content)
    if not isinstance(found, dict):
        raise UnreadablePickleError("it is a pickle, but not of a dict")
    return found


def _batch(name: str, part: Part, batch: dict[str, object]) -> Iterator[Item]:
    pixels = batch.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (cifar.IMAGE_BYTES,):
        raise UnreadablePickleError(f"it has no `data` of N x {cifar.IMAGE_BYTES} bytes")
    labels = _labels(next((batch[key] for key in _LABELS if key in batch), None))
    if len(labels) != len(pixels):
        raise UnreadablePickleError(f"it has {len(pixels)} images and {len(labels)} labels")
    yield from cifar.samples(name, part, labels, np.ascontiguousarray(pixels))


def _labels(values: object) -> np.ndarray:
    """(N,) int64."""
    values = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(values, list):
        raise UnreadablePickleError(f"it has no list of {' or '.join(_LABELS)}")
    if not all(isinstance(value, int) and 0 <= value < cifar.MAX_CLASSES for value in values):
        raise UnreadablePickleError(f"it has labels that are not numbers from 0 to {cifar.MAX_CLASSES - 1}")
    return np.array(values, np.int64)


def _class_names(meta: dict[str, object]) -> ClassNames:
    names = next((meta[key] for key in _LABEL_NAMES if key in meta), None)
    if not isinstance(names, list):
        raise UnreadablePickleError(f"it has no list of {' or '.join(_LABEL_NAMES)}")
    texts = [name.decode("latin-1") if isinstance(name, bytes) else name for name in names[: cifar.MAX_CLASSES]]
    if not all(isinstance(text, str) for text in texts):
        raise UnreadablePickleError("it has class names that are no text")
    return ClassNames(tuple(str(text)[: cifar.MAX_NAME_LENGTH] for text in texts))


def _is_python(path: Path) -> bool:
    return cifar.has_batches(path, "")


FORMAT = DatasetFormat("cifar_python", _is_python, read)
