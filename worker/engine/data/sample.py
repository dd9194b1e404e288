"""What every dataset format is read into: a stream of images, and of files that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

Part: TypeAlias = Literal["train", "validation", "test"]
Label: TypeAlias = str | int


@dataclass(frozen=True)
class Sample:
    """An image (H, W, C), uint8 in 0..255 or float32 as it is. A label is a class number or a class name, and None in
    all samples of a dataset that has no labels."""

    name: str
    part: Part
    label: Label | None
    image: np.ndarray


@dataclass(frozen=True)
class BadFile:
    """A file that was left out, and why. `label` is the class it would have belonged to, if it has one."""

    name: str
    reason: str
    label: Label | None = None


@dataclass(frozen=True)
class ClassNames:
    """What the class numbers from 0 on are called, where labels are numbers and the dataset names them."""

    names: tuple[str, ...]


Item: TypeAlias = Sample | BadFile | ClassNames


@dataclass(frozen=True)
class DatasetFormat:
    """A format: how its files are recognised by content, and how they are read. A `catch_all` is asked last: it takes
    every file of some kind that no other format knows better."""

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Item]]
    catch_all: bool = False
