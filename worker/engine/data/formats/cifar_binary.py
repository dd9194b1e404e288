"""CIFAR, the binary version: records of one label byte (CIFAR-10) or two (CIFAR-100) and 3,072 bytes of pixels.

CIFAR-100's first byte is the coarse label and its second the fine one, which counts here. Class names come from
batches.meta.txt or fine_label_names.txt, a line each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from worker.engine.data import cifar
from worker.engine.data.archive import Member, members
from worker.engine.data.sample import BadFile, ClassNames, DatasetFormat, Item, Part

_NAMES = frozenset({"batches.meta.txt", "fine_label_names.txt"})
_COARSE_NAMES = "coarse_label_names.txt"


def read(path: Path) -> Iterator[Item]:
    for member in members(path, max_bytes=cifar.MAX_BATCH_BYTES):
        part = cifar.batch_part(member.path, ".bin")
        if part is not None:
            yield from _batch(member, part)
        elif member.path.name in _NAMES:
            yield _class_names(member)
        elif not cifar.is_addition(member.path) and member.path.name != _COARSE_NAMES:
            yield BadFile(str(member.path), "it is neither a batch nor a list of class names")


def _batch(member: Member, part: Part) -> Iterator[Item]:
    name, label_bytes = str(member.path), _label_bytes(member.path)
    record_bytes = label_bytes + cifar.IMAGE_BYTES
    if member.refused:
        yield BadFile(name, member.refused)
    elif not member.content or len(member.content) % record_bytes:
        yield BadFile(name, f"it has {len(member.content):,} bytes, which are not whole records of {record_bytes:,}")
    else:
        records = np.frombuffer(member.content, np.uint8).reshape(-1, record_bytes)
        yield from cifar.samples(name, part, records[:, label_bytes - 1], records[:, label_bytes:])


def _label_bytes(path: PurePosixPath) -> int:
    """CIFAR-100 calls its batches train.bin and test.bin."""
    return 2 if path.stem in {"train", "test"} else 1


def _class_names(member: Member) -> ClassNames | BadFile:
    try:
        lines = [line.strip() for line in member.content.decode().splitlines()]
    except UnicodeDecodeError:
        return BadFile(str(member.path), "it is no text in UTF-8")
    names = tuple(line[: cifar.MAX_NAME_LENGTH] for line in lines if line)
    return ClassNames(names[: cifar.MAX_CLASSES])


def _is_binary(path: Path) -> bool:
    return cifar.has_batches(path, ".bin")


FORMAT = DatasetFormat("cifar_binary", _is_binary, read)
