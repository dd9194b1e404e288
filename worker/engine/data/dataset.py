"""A dataset ready for a model: images of its input's size, split by class and seed, as normalised batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from worker.engine.data.augmentation import Augmentation
from worker.engine.data.facts import class_names, class_order, format_of, refuse_if_unfit
from worker.engine.data.images import channels_last, fit
from worker.engine.data.input_spec import InputSpec
from worker.engine.data.pixels import PixelStore
from worker.engine.data.sample import BadFile, ClassNames, Item, Label, Part, Sample
from worker.engine.errors import EngineError


@dataclass(frozen=True)
class DataOptions:
    """Normalisation per channel, on values scaled to 0..1 where pixels are bytes; whether labels are used; and the
    shares that are held out."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    labels: bool = True
    test_fraction: float = 0.2
    validation_fraction: float = 0.1


@dataclass(frozen=True)
class Split:
    """Some rows of the dataset's images, with their class numbers: all 0 where there are no labels."""

    images: np.ndarray  # (all, H, W, C), uint8 or float32, shared by the splits
    rows: np.ndarray  # (N,)
    labels: np.ndarray  # (N,) int64
    scale: np.ndarray  # (C,) float32: normalised = pixel * scale + shift
    shift: np.ndarray
    layout: str

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, wanted: slice) -> Split: ...

    @overload
    def __getitem__(self, wanted: np.ndarray) -> np.ndarray: ...

    def __getitem__(self, wanted: slice | np.ndarray) -> Split | np.ndarray:
        """As of the array (N, ...) of all float32 inputs in the model's layout, which may be too large for memory: a
        slice is a view, and an array of numbers has the inputs of these images read."""
        if isinstance(wanted, slice):
            return replace(self, rows=self.rows[wanted], labels=self.labels[wanted])
        return self._normalised(self.images[self.rows[wanted]])

    def shuffled(self, rng: np.random.Generator) -> Split:
        """The same images in the order in which `batches` gives them by this `rng`."""
        order = rng.permutation(len(self))
        return replace(self, rows=self.rows[order], labels=self.labels[order])

    def batches(
        self,
        batch_size: int,
        *,
        rng: np.random.Generator | None = None,
        augmentation: Augmentation | None = None,
        first: int = 0,
        part: Callable[[int], slice] = lambda size: slice(0, size),
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of float32 inputs in the model's layout and int64 labels (B,); shuffled where `rng` is given.

        Begins with batch number `first`. Each batch is augmented by a generator of its own, spawned from `rng`: it is
        the same whether or not those before it were asked for. `part` says of a batch's size which rows are wanted.
        """
        order = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        starts = range(0, len(order), batch_size)
        streams = [None] * len(starts) if rng is None else rng.spawn(len(starts))
        for start, stream in list(zip(starts, streams, strict=True))[first:]:
            whole = order[start : start + batch_size]
            wanted = part(len(whole))
            chosen = whole[wanted]
            images = self.images[self.rows[chosen]]
            if augmentation is not None and stream is not None:
                images = augmentation(images, stream, len(whole), wanted)
            yield self._normalised(images), self.labels[chosen]

    def drawn(self, count: int, rng: np.random.Generator) -> Split:
        """At most `count` of its images, drawn by `rng`, in the order in which they lie here: by class, often."""
        chosen = np.sort(rng.permutation(len(self))[:count])
        return replace(self, rows=self.rows[chosen], labels=self.labels[chosen])

    def _normalised(self, images: np.ndarray) -> np.ndarray:
        scale, shift = self.scale, self.shift
        if self.layout == "NCHW":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
            scale, shift = scale[:, None, None], shift[:, None, None]
        normalised: np.ndarray = images * scale + shift
        return normalised


@dataclass(frozen=True)
class Dataset:
    """`classes` is empty where the images have no labels. `converted` of the images had other sizes or channels than
    the model's input."""

    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    converted: int = 0

    @property
    def labelled(self) -> bool:
        return bool(self.classes)


def open_dataset(
    path: Path, spec: InputSpec, options: DataOptions | None = None, seed: int = 0, folder: Path | None = None
) -> Dataset:
    """Read a dataset for a model's input. Splits that the upload brings are kept; what it lacks is held out from its
    training images, the same share of every class, by `seed` alone. Many images are kept in a file in `folder`.
    Images of other sizes or channels than the input's are made to fit.
    """
    options = options or DataOptions()
    samples, images, names, converted = _read(path, spec, folder)
    order = class_order({label for _, _, label in samples if options.labels and label is not None}, names)
    numbers: dict[Label | None, int] = {label: number for number, label in enumerate(order)}
    labels = np.array([numbers.get(label, 0) for _, _, label in samples], np.int64)
    rows = _split([part for _, part, _ in samples], [name for name, _, _ in samples], labels, options, seed)
    scale, shift = _normalisation(options, images)
    parts = {part: Split(images, index, labels[index], scale, shift, spec.layout) for part, index in rows.items()}
    return Dataset(class_names(order, names), parts["train"], parts["validation"], parts["test"], converted)


def _read(
    path: Path, spec: InputSpec, folder: Path | None
) -> tuple[list[tuple[str, Part, Label | None]], np.ndarray, tuple[str, ...], int]:
    """Names, parts and labels of the sound samples, their images in the same order, names of class numbers, and how
    many of the images had to be made to fit."""
    found = format_of(path)
    spec = _concrete(spec, found.read(path))
    store, samples, bad = PixelStore(folder), [], []
    names: tuple[str, ...] = ()
    converted = 0
    for item in found.read(path):
        if isinstance(item, ClassNames):
            names = item.names
        elif isinstance(item, BadFile):
            bad.append(item)
        else:
            image = channels_last(item.image, spec.channels)
            fitted = fit(image, spec)
            converted += fitted is not image
            store.append(fitted)
            samples.append((item.name, item.part, item.label))
    refuse_if_unfit(Counter(label for _, _, label in samples), Counter(part for _, part, _ in samples), bad)
    return samples, store.array(), names, converted


def _concrete(spec: InputSpec, items: Iterator[Item]) -> InputSpec:
    """The spec with dimensions that the model leaves open taken from the most common image."""
    if None not in (spec.channels, spec.height, spec.width):
        return spec
    images = (channels_last(item.image, spec.channels) for item in items if isinstance(item, Sample))
    shapes = Counter(image.shape for image in images)
    height, width, channels = shapes.most_common(1)[0][0] if shapes else (1, 1, 1)
    return InputSpec(spec.layout, spec.channels or channels, spec.height or height, spec.width or width)


def _split(
    parts: list[Part], names: list[str], labels: np.ndarray, options: DataOptions, seed: int
) -> dict[str, np.ndarray]:
    """Rows of each split. Independent of the order in which an archive stores its files."""
    by_name = np.array(sorted(range(len(names)), key=names.__getitem__))
    part_of = np.array(parts)
    rows = {part: by_name[part_of[by_name] == part] for part in ("train", "validation", "test")}
    for part, fraction in (("test", options.test_fraction), ("validation", options.validation_fraction)):
        if len(rows[part]) == 0:
            rng = np.random.default_rng([seed, 1 if part == "test" else 2])
            rows["train"], rows[part] = _hold_out(rows["train"], labels, fraction, rng)
    if len(rows["train"]) == 0 or len(rows["validation"]) == 0 or len(rows["test"]) == 0:
        sizes = ", ".join(f"{part} {len(index)}" for part, index in rows.items())
        raise EngineError(
            "empty_split", f"A split of the dataset is empty ({sizes}).", "Add images, or hold out another share."
        )
    return rows


def _hold_out(
    rows: np.ndarray, labels: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What stays and what is held out: `fraction` of every class, at least one of it, never all."""
    held = np.zeros(len(rows), bool)
    for label in np.unique(labels[rows]):
        places = np.flatnonzero(labels[rows] == label)
        count = min(max(round(len(places) * fraction), 1), len(places) - 1)
        held[rng.permutation(places)[:count]] = True
    return rows[~held], rows[held]


def _normalisation(options: DataOptions, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x / 255 - mean) / std as scale and shift; floating-point images are not divided by 255."""
    channels = images.shape[3]
    if len(options.mean) not in {1, channels} or len(options.std) not in {1, channels}:
        raise EngineError(
            "normalisation_mismatch",
            f"data.mean has {_counted(len(options.mean), 'value')} and data.std {_counted(len(options.std), 'value')}; "
            f"the model takes images of {_counted(channels, 'channel')}.",
            "Give one value of each for all channels" + (f", or {channels}." if channels > 1 else "."),
        )
    mean, std = (np.broadcast_to(np.array(v, np.float32), channels) for v in (options.mean, options.std))
    unit = np.float32(255 if images.dtype == np.uint8 else 1)
    return 1 / (unit * std), -mean / std


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
