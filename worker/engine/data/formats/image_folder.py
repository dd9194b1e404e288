"""Image folders: an archive with one folder per class, or with images alone.

`cat/1.png`, or below split folders `train/cat/1.png`, `test/cat/2.png`, or all of it inside folders that merely wrap
it: `data/train/cat/1.png`. Class names come in plain string order, as torchvision's ImageFolder and Keras have it.
Where all images lie in one folder, or in one for each split, they have no labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from worker.engine.data.archive import is_npz, is_tar, is_zip, members
from worker.engine.data.images import UndecodableError, decode
from worker.engine.data.sample import BadFile, DatasetFormat, Part, Sample

_PARTS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_ARCHIVER_FOLDERS = frozenset({"__MACOSX"})
_DESKTOP_FILES = frozenset({"Thumbs.db", "desktop.ini"})


def read(path: Path) -> Iterator[Sample | BadFile]:
    """Every file of the archive. Its folders are looked at first, as only all of them tell classes from wrappers."""
    paths = [member.path for member in members(path, contents=False) if not _is_clutter(member.path)]
    prefix, has_parts = _outline(paths)
    labelled = len({_class(path, prefix, has_parts) for path in paths} - {None}) > 1
    for member in members(path):
        if _is_clutter(member.path):
            continue
        name = str(member.path)
        folders = member.path.parts[prefix:-1]
        part = _PARTS[folders[0].lower()] if has_parts and folders else "train"
        label = _class(member.path, prefix, has_parts) if labelled else None
        if labelled and label is None:
            yield BadFile(name, "it lies in no class folder")
        elif member.refused:
            yield BadFile(name, member.refused, label)
        else:
            try:
                yield Sample(name, part, label, decode(member.content))
            except UndecodableError as error:
                yield BadFile(name, str(error), label)


def _class(path: PurePosixPath, prefix: int, has_parts: bool) -> str | None:
    """The class folder in which a file lies; None for a file beside such folders."""
    return next(iter(path.parts[prefix + has_parts : -1]), None)


def _outline(paths: Iterable[PurePosixPath]) -> tuple[int, bool]:
    """How many outer folders only wrap the dataset, and whether split folders come next."""
    folders = {path.parts[:-1] for path in paths if len(path.parts) > 1}
    prefix = 0
    while folders:
        outer = {f[prefix] for f in folders if len(f) > prefix}
        if outer and {name.lower() for name in outer} <= _PARTS.keys():
            return prefix, True
        if len(outer) != 1 or not any(len(f) > prefix + 1 for f in folders):
            break
        prefix += 1
    return prefix, False


def _is_clutter(path: PurePosixPath) -> bool:
    """What archivers and desktops add by themselves."""
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or path.parts[0] in _ARCHIVER_FOLDERS or path.name in _DESKTOP_FILES


def _is_archive(path: Path) -> bool:
    return (is_zip(path) and not is_npz(path)) or is_tar(path)


FORMAT = DatasetFormat("image_folder", _is_archive, read, catch_all=True)
