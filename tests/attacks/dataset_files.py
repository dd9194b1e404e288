"""Hostile and broken datasets, each with the code of its refusal."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.cifar_files import dumped_with, images_of, packed, python_files

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


def _cifar(**batches: bytes) -> bytes:
    """A sound archive of CIFAR batches, but for those named."""
    sound = {"data_batch_1": images_of(8), "test_batch": images_of(8)}
    return packed(python_files(sound, dumped_with(2), fine=False) | batches, "w:gz")


class _Call:
    def __init__(self, function: object, *arguments: object) -> None:
        self.made = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.made


@attack("cifar_python", "pickle_refused")
def cifar_batch_that_runs_a_shell() -> bytes:
    call = _Call(os.system, "mkdir /tmp/espalier-attack && touch /tmp/espalier-attack/outside.png")
    return _cifar(data_batch_2=pickle.dumps({"data": call}, protocol=2))


@attack("cifar_python", "pickle_refused")
def cifar_batch_that_calls_numpy() -> bytes:
    """Of NumPy, too, only what makes arrays: numpy.load would unpickle, memmap would write."""
    return _cifar(data_batch_2=pickle.dumps({"data": _Call(np.memmap, "/tmp/espalier-attack/x", "u1", "w+", 0, (9,))}))


@attack("cifar_python", "unusable_dataset")
def cifar_batch_of_giant_claims() -> bytes:
    """An array of a terabyte, bytes of an exabyte, and a memo of four billion entries."""
    array = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}, protocol=2)
    return packed(
        {
            "data_batch_1": array.replace(b"K\x02M\x00\x0c\x86", b"J\xff\xff\xff\x7fM\x00\x0c\x86"),
            "data_batch_2": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"bytes.",
            "data_batch_3": b"\x80\x02K\x01r" + struct.pack("<I", 2**32 - 1) + b".",
        }
    )


@attack("cifar_python", "unusable_dataset")
def cifar_batch_of_many_steps() -> bytes:
    """60 million steps in an archive of 60 kB."""
    return packed({"data_batch_1": b"\x80\x02" + b"N" * 60_000_000 + b"."})


@attack("cifar_python", "unusable_dataset")
def cifar_batch_of_nested_lists() -> bytes:
    """Doubled forty times by reference, and a hundred thousand deep: whoever prints or compares it never ends."""
    doubled = b"]" + b"".join(b"q\x01](h\x01h\x01e" for _ in range(40))
    deep = b"]" * 100_000 + b"a" * 99_999
    return packed(
        {
            "data_batch_1": b"\x80\x02}(U\x06labels" + doubled + b"U\x04data" + deep + b"u.",
            "test_batch": b"\x80\x02cnumpy\ndtype\n" + doubled + b"\x85R.",
            "train": b"\x80\x04" + doubled + deep + b"\x93.",
        }
    )


@attack("cifar_python", "archive_too_large")
def cifar_header_bomb() -> bytes:
    """A batch that claims 300 MB."""
    claimed = tarfile.TarInfo("data_batch_1")
    claimed.size = 300 * 2**20
    return _tar({}, extra=[claimed])


@attack("cifar_binary", "unsafe_archive")
def cifar_with_parent_paths() -> bytes:
    return _tar({"data_batch_1.bin": bytes(3073 * 4), "../../test_batch.bin": bytes(3073 * 4)})
