"""Hostile and broken datasets, each with the code of its refusal."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

ATTACKS: dict[str, tuple[Callable[[], bytes], str, set[str]]] = {}
Make = Callable[[], bytes]


def attack(format: str, *codes: str) -> Callable[[Make], Make]:
    """Register a file under its function's name."""

    def register(make: Make) -> Make:
        ATTACKS[make.__name__] = (make, format, set(codes))
        return make

    return register


def _png(size: int = 4) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def _tar(members: dict[str, bytes], *, extra: list[tarfile.TarInfo] | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra or []:
            archive.addfile(info)
    return file.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _folder(content: bytes) -> dict[str, bytes]:
    return {f"{name}/{i}.png": content for name in ("cat", "dog") for i in range(4)}


@attack("image_folder", "unknown_dataset_format")
def empty_dataset() -> bytes:
    return b""


@attack("image_folder", "unknown_dataset_format")
def text_dataset() -> bytes:
    return b"class,file\ncat,1.png\n" * 100


@attack("image_folder", "unsafe_archive")
def tar_with_parent_paths() -> bytes:
    return _tar({"../../outside.png": _png(), **_folder(_png())})


@attack("image_folder", "unsafe_archive")
def tar_with_absolute_paths() -> bytes:
    return _tar({"/tmp/espalier-attack/outside.png": _png(), **_folder(_png())})


@attack("image_folder", "unsafe_archive")
def tar_with_a_symlink() -> bytes:
    link = tarfile.TarInfo("cat/9.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return _tar(_folder(_png()), extra=[link])


@attack("image_folder", "unsafe_archive")
def tar_with_a_hard_link() -> bytes:
    link = tarfile.TarInfo("cat/9.png")
    link.type, link.linkname = tarfile.LNKTYPE, "../../../../../etc/shadow"
    return _tar(_folder(_png()), extra=[link])


@attack("image_folder", "unsafe_archive")
def tar_with_a_device() -> bytes:
    device = tarfile.TarInfo("cat/zero")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 5
    return _tar(_folder(_png()), extra=[device])


@attack("image_folder", "archive_too_large")
def tar_header_bomb() -> bytes:
    """A pax header that claims eight gigabytes."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 8 * 2**30
    return header.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096


@attack("image_folder", "unsafe_archive")
def zip_with_parent_paths() -> bytes:
    return _zip({"cat/../../../outside.png": _png(), **_folder(_png())})


@attack("image_folder", "unsafe_archive")
def zip_with_a_symlink() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("cat/0.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return file.getvalue()


@attack("image_folder", "archive_too_large", "unusable_dataset")
def zip_bomb() -> bytes:
    """A thousand times its size, in members of 60 MB each."""
    zeros = bytes(60 * 2**20)
    return _zip({f"{name}/{i}.png": zeros for name in ("cat", "dog") for i in range(3)})


@attack("image_folder", "archive_too_large", "unusable_dataset")
def gzip_bomb() -> bytes:
    """400 MB of zeros in a tar in a gzip."""
    return gzip.compress(_tar(_folder(bytes(50 * 2**20))), 9)


@attack("image_folder", "broken_archive")
def truncated_archive() -> bytes:
    whole = lzma.compress(_tar(_folder(np.random.default_rng(0).bytes(50_000))))
    return whole[: len(whole) // 2]


@attack("image_folder", "unusable_dataset")
def broken_images() -> bytes:
    return _tar(_folder(_png(64)[:60]))


@attack("image_folder", "unusable_dataset")
def text_images() -> bytes:
    return _tar(_folder(b"no image at all"))


@attack("image_folder", "unusable_dataset")
def svg_images() -> bytes:
    return _tar({name.replace(".png", ".svg"): b"<svg/>" for name in _folder(b"")})


@attack("image_folder", "unusable_dataset")
def giant_pixel_header() -> bytes:
    """A PNG of 200 bytes that claims 100,000 x 100,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    image = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    return _tar(_folder(image))


@attack("image_folder", "unusable_dataset")
def one_class_with_images() -> bytes:
    return _tar({f"cat/{i}.png": _png() for i in range(10)} | {"dog/0.png": b"no image"})


@attack("npz", "unreadable_npz")
def npz_with_a_pickle() -> bytes:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit('a pickle was loaded')",)

    objects = np.array([Payload()] * 8, dtype=object)
    return _npz(x=objects, y=np.arange(8) % 2)


@attack("npz", "unreadable_npz")
def npz_header_bomb() -> bytes:
    """A header that claims a terabyte of pixels."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 1000, 1000, 1)}
    )
    labels = io.BytesIO()
    np.save(labels, np.arange(8) % 2)
    return _zip({"x.npy": file.getvalue() + bytes(1000), "y.npy": labels.getvalue()})


@attack("npz", "unreadable_npz")
def npz_with_enormous_labels() -> bytes:
    """Class number 2^40: a list of all classes up to it would be the bomb."""
    return _npz(x=np.zeros((8, 4, 4, 3), np.uint8), y=np.array([0, 1] * 3 + [2**40] * 2))


@attack("npz", "unreadable_npz")
def npz_with_labels_of_the_test_images_alone() -> bytes:
    x = np.zeros((8, 4, 4, 3), np.uint8)
    return _npz(x=x, x_test=x, y_test=np.arange(8) % 2)


@attack("npz", "broken_archive")
def npz_truncated() -> bytes:
    whole = _npz(x=np.zeros((800, 4, 4, 3), np.uint8), y=np.arange(800) % 2)
    return whole[: len(whole) // 2]


@attack("npz", "unreadable_npz")
def npz_with_text() -> bytes:
    return _npz(x=np.array(["a", "b"] * 4), y=np.arange(8) % 2)


@attack("npz", "unknown_dataset_format")
def pickled_dataset() -> bytes:
    return pickle.dumps({"x": [1, 2, 3]})
