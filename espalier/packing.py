"""What to send for a path: its resource, its format, and one file even where the path is a folder of images."""

import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from espalier.errors import NotAnUpload

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt")


@dataclass(frozen=True)
class Kind:
    resource: Literal["models", "datasets"]
    format: Literal["onnx", "onnx_zip", "torchvision", "npz"] | None  # None: an archive, which the service looks into


def recognise(path: Path) -> Kind:
    """The kind of upload, by the path's name. Raises NotAnUpload."""
    if not path.exists():
        raise NotAnUpload(f"{path} does not exist", "Check the path.")
    if path.is_dir():
        return Kind("datasets", None)
    name = path.name.lower()
    if name.endswith(".onnx"):
        return Kind("models", "onnx")
    if name.endswith(".safetensors"):
        return Kind("models", "torchvision")
    if name.endswith(".npz"):
        return Kind("datasets", "npz")
    if name.endswith(".zip") and _holds_a_model(path):
        return Kind("models", "onnx_zip")
    if name.endswith(ARCHIVE_SUFFIXES):
        return Kind("datasets", None)
    if name.endswith(PICKLE_SUFFIXES):
        raise NotAnUpload(
            f"{path.name} is a pickle, which is a program and not data",
            "Export the model to ONNX (torch.onnx.export), or save its weights with safetensors.",
        )
    raise NotAnUpload(
        f"{path.name} has no ending that says what it is",
        "Models: .onnx, a .zip of one with its files of weights, .safetensors. "
        "Datasets: .npz, a folder with one folder of images per class or with CIFAR batches, or such a folder "
        f"as {', '.join(ARCHIVE_SUFFIXES)}.",
    )


def _holds_a_model(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith(".onnx") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False  # the service says what is wrong with it


@contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """`path` itself, or for a folder a temporary tar of it that is the same whenever its files are the same."""
    if not path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="espalier-") as folder:
        archive = Path(folder) / f"{path.resolve().name}.tar"
        with tarfile.open(archive, "w") as tar:
            for file in _regular_files(path):
                member = tarfile.TarInfo(file.relative_to(path).as_posix())
                member.size = file.stat().st_size
                with file.open("rb") as content:
                    tar.addfile(member, content)
        yield archive


def _regular_files(folder: Path) -> Iterator[Path]:
    """In order of their paths; symbolic links are not followed."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _regular_files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
