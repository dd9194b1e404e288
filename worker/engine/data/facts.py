"""What an uploaded dataset holds, found by reading all of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.engine.data.sample import BadFile, ClassNames, DatasetFormat, Label, Part
from worker.engine.errors import EngineError

MAX_SHAPES = 16
MAX_BAD_FILES = 100
MIN_CLASSES = 2
MIN_SAMPLES_PER_CLASS = 2  # one to learn from and one to test with
MIN_UNLABELLED = 4
MIN_SOUND_SHARE = 0.5
_FEW_IMAGES = "At least two sound images of each class are needed; in an archive of images, in a folder named after it."


@dataclass(frozen=True)
class DatasetFacts:
    """Counts of sound samples; files left out are listed with their reason, at most MAX_BAD_FILES of them. Images
    without labels have no classes."""

    format: str
    classes: tuple[str, ...]
    samples: int
    samples_per_class: tuple[int, ...]
    test_samples: int
    shapes: tuple[str, ...]
    bad_files: tuple[str, ...]
    bad_file_count: int


def inspect_dataset(path: Path) -> DatasetFacts:
    """Read a dataset to its end. Raises EngineError where it is no dataset, hostile, or mostly broken."""
    found = format_of(path)
    counts: Counter[Label | None] = Counter()
    shapes: Counter[str] = Counter()
    labels: set[Label] = set()
    names: tuple[str, ...] = ()
    parts: Counter[Part] = Counter()
    bad = []
    for item in found.read(path):
        if isinstance(item, ClassNames):
            names = item.names
            continue
        if item.label is not None:
            labels.add(item.label)
        if isinstance(item, BadFile):
            bad.append(item)
        else:
            counts[item.label] += 1
            shapes["x".join(str(size) for size in item.image.shape)] += 1
            parts[item.part] += 1
    refuse_if_unfit(counts, parts, bad)
    order = class_order(labels, names)
    return DatasetFacts(
        format=found.name,
        classes=class_names(order, names),
        samples=counts.total(),
        samples_per_class=tuple(counts[label] for label in order),
        test_samples=parts["test"],
        shapes=tuple(shape for shape, _ in shapes.most_common(MAX_SHAPES)),
        bad_files=tuple(f"{item.name}: {item.reason}" for item in bad[:MAX_BAD_FILES]),
        bad_file_count=len(bad),
    )


def format_of(path: Path) -> DatasetFormat:
    """The format that recognises a file by its content; its name does not matter."""
    for candidate in sorted(formats(), key=lambda known: known.catch_all):
        if candidate.recognises(path):
            return candidate
    known = ", ".join(sorted(f.name for f in formats()))
    raise EngineError(
        "unknown_dataset_format",
        f"The file is of no dataset format known here ({known}).",
        "Upload a zip, tar, tar.gz or tar.xz with one folder of images per class, a CIFAR archive, or an npz with x "
        "and y.",
    )


def formats() -> Iterator[DatasetFormat]:
    """Every format found in `formats/`."""
    from worker.engine.data import formats as package

    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        found: DatasetFormat = importlib.import_module(module.name).FORMAT
        yield found


def class_order(labels: Collection[Label], names: Sequence[str] = ()) -> list[Label]:
    """Class names in string order; class numbers from 0 to the largest, or to the last that has one of the `names`,
    also those without samples."""
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        return list(range(max(max(numbers, default=-1) + 1, len(names) if numbers else 0)))
    return sorted(labels, key=str)


def class_names(order: Sequence[Label], names: Sequence[str]) -> tuple[str, ...]:
    """What to call the classes: by their `names` as far as these go, else as they are."""
    return tuple(names[label] if isinstance(label, int) and label < len(names) else str(label) for label in order)


def refuse_if_unfit(counts: Counter[Label | None], parts: Counter[Part], bad: list[BadFile]) -> None:
    """Raise where too little is left to train and test with."""
    examples = "; ".join(f"{item.name}: {item.reason}" for item in bad[:3])
    if not counts:
        raise _unfit("It holds no usable image", examples or "it is empty")
    if len(bad) > (1 - MIN_SOUND_SHARE) * (len(bad) + counts.total()):
        raise _unfit(f"{len(bad)} of its files are unusable and only {counts.total()} are sound", examples)
    if not parts["train"]:  # the other parts are held out of it where they are missing, never the other way round
        raise _unfit(
            "None of its images is for training",
            ", ".join(f"{count} for {part}" for part, count in parts.items()),
            "Add images for training, as in train/ beside test/; without such folders some of all images are held out.",
        )
    if counts.keys() == {None}:
        if counts[None] < MIN_UNLABELLED:
            raise _unfit(f"It holds {counts[None]} images without labels", f"at least {MIN_UNLABELLED} are needed")
        return
    if len(counts) < MIN_CLASSES:
        raise _unfit(f"Only one class ({next(iter(counts))!s}) has images", examples or "nothing else was found")
    scarce = [str(label) for label, count in counts.items() if count < MIN_SAMPLES_PER_CLASS]
    if scarce:
        raise _unfit(f"Some classes have fewer than {MIN_SAMPLES_PER_CLASS} images", ", ".join(sorted(scarce)[:5]))


def _unfit(what: str, details: str, hint: str = _FEW_IMAGES) -> EngineError:
    return EngineError("unusable_dataset", f"The dataset cannot be used. {what}: {details}.", hint)
