"""NumPy archives with arrays x and y, and optionally x_test and y_test; without y and y_test the images have no labels.

x is (N, H, W), (N, H, W, C) or (N, C, H, W); uint8, or floating-point numbers that are taken as they are, and x_test
the same. y holds class numbers from 0 on, or class names.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from worker.engine.data.archive import is_npz, open_zip
from worker.engine.data.sample import BadFile, DatasetFormat, Label, Part, Sample
from worker.engine.errors import EngineError

MAX_ARRAY_BYTES = 16 * 2**30
MAX_CLASSES = 100_000
_IMAGE_CHANNELS = (1, 3, 4)
_PARTS: tuple[tuple[str, str, Part], ...] = (("x", "y", "train"), ("x_test", "y_test", "test"))


def read(path: Path) -> Iterator[Sample | BadFile]:
    with open_zip(path) as archive:
        yield from _samples(archive)


def _samples(archive: zipfile.ZipFile) -> Iterator[Sample | BadFile]:
    names = {name.removesuffix(".npy") for name in archive.namelist()}
    labelled = "y" in names or "y_test" in names
    if "x" not in names or (labelled and ("y" not in names or ("x_test" in names) != ("y_test" in names))):
        raise _unfit(
            f"it holds {', '.join(sorted(names)[:8])}",
            "It needs x, and y where there are labels; it may hold x_test and y_test.",
        )
    pixels: set[np.dtype] = set()
    for x_name, y_name, part in _PARTS:
        if x_name in names:
            images = _as_nhwc(_array(archive, x_name), x_name)
            pixels.add(images.dtype)
            if len(pixels) > 1:
                raise _unfit("x and x_test differ in type: uint8 and floating-point", "Scale and save both alike.")
            labels: list[Label | None] = [None] * len(images)
            if labelled:
                labels = _labels(_array(archive, y_name), y_name).tolist()
            if len(images) != len(labels):
                raise _unfit(f"{x_name} has {len(images)} rows, {y_name} has {len(labels)}", "Save them in step.")
            for row, (image, label) in enumerate(zip(images, labels, strict=True)):
                name = f"{x_name}[{row}]"
                if image.dtype != np.uint8 and not np.isfinite(image).all():
                    yield BadFile(name, "it holds numbers that are not finite", label)
                else:
                    yield Sample(name, part, label, image)


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array read by its header; nothing is allocated that the header does not justify, and nothing is unpickled."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as file:
        try:
            shape, fortran_order, dtype = _header(file)
        except ValueError as error:
            raise _unfit(f"{name} is no NumPy array: {error}", "Save it with numpy.savez.") from error
        if dtype.hasobject or dtype.kind not in "buifU":
            raise _unfit(
                f"{name} has the type {dtype}", "Use uint8 or float32 for x, int64 for y; objects are refused."
            )
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_ARRAY_BYTES or size > info.file_size:
            raise _unfit(f"{name} claims {size} bytes", f"Arrays may have {MAX_ARRAY_BYTES >> 30} GiB.")
        content = file.read(size)
    if len(content) != size:
        raise _unfit(f"{name} is cut short", "Save the file again.")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"format version {version}")


def _as_nhwc(x: np.ndarray, name: str) -> np.ndarray:
    """Images as (N, H, W, C), uint8 or float32."""
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise _unfit(f"{name} has the type {x.dtype}", "Use uint8 in 0..255, or floating-point numbers.")
    if x.ndim == 3:
        x = x[..., None]
    elif x.ndim == 4 and x.shape[3] not in _IMAGE_CHANNELS and x.shape[1] in _IMAGE_CHANNELS:
        x = x.transpose(0, 2, 3, 1)
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise _unfit(f"{name} has the shape {x.shape}", "Use (N, H, W), (N, H, W, C) or (N, C, H, W).")
    return x if x.dtype == np.uint8 else x.astype(np.float32)


def _labels(y: np.ndarray, name: str) -> np.ndarray:
    """Class numbers or names, (N,)."""
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or y.dtype.kind == "f":
        raise _unfit(
            f"{name} has the shape {y.shape} and type {y.dtype}",
            "Use one class number per image, or leave the labels out: the pruned model then learns from the original.",
        )
    if y.dtype.kind == "U":
        return y
    if y.size and (int(y.min()) < 0 or int(y.max()) >= MAX_CLASSES):
        raise _unfit(f"{name} holds class numbers outside 0..{MAX_CLASSES - 1}", "Number the classes from 0.")
    return y.astype(np.int64)


def _unfit(what: str, hint: str) -> EngineError:
    return EngineError("unreadable_npz", f"The npz file is not a dataset: {what}.", hint)


FORMAT = DatasetFormat("npz", is_npz, read)
