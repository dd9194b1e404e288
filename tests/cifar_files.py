"""Archives of CIFAR batches as they are published, in small: the Python version as Python 2 and 3 write it, and the
binary version."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

NAMES = ("ship", "frog", "cat", "dog")  # not in the order of the alphabet: numbers decide, not names
Pickle = Callable[[Mapping[str, object]], bytes]


def images_of(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) of a colour for each class, with noise, and their class numbers."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(NAMES)
    colours = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (180, 180, 60)])
    noise = rng.integers(-30, 30, (count, 32, 32, 3))
    return (colours[labels][:, None, None, :] + noise).clip(0, 255).astype(np.uint8), labels


def rows_of(images: np.ndarray) -> np.ndarray:
    """(N, 3072) uint8: red, green and blue planes."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def python_files(batches: Mapping[str, tuple[np.ndarray, np.ndarray]], dumps: Pickle, fine: bool) -> dict[str, bytes]:
    """CIFAR-10's files, or with `fine` those of CIFAR-100, by name."""
    labels_key = "fine_labels" if fine else "labels"
    files = {
        name: dumps({"batch_label": f"batch {name}", labels_key: labels.tolist(), "data": rows_of(images)})
        for name, (images, labels) in batches.items()
    }
    meta = dumps({("fine_label_names" if fine else "label_names"): list(NAMES), "num_vis": 3072})
    return files | {("meta" if fine else "batches.meta"): meta}


def binary_files(batches: Mapping[str, tuple[np.ndarray, np.ndarray]], fine: bool) -> dict[str, bytes]:
    files = {}
    for name, (images, labels) in batches.items():
        own = labels.astype(np.uint8)[:, None]
        coarse = [own // 2] if fine else []
        files[f"{name}.bin"] = np.concatenate([*coarse, own, rows_of(images)], axis=1).tobytes()
    text = "\n".join(NAMES).encode() + b"\n\n"
    return files | {("fine_label_names.txt" if fine else "batches.meta.txt"): text}


def dumped_by_python_2(document: Mapping[str, object]) -> bytes:
    """Protocol 2 as Python 2 writes it, whose text is bytes: the opcodes of the published archives."""
    return b"\x80\x02" + _python_2(document) + b"."


def _python_2(value: object) -> bytes:
    match value:
        case int():
            return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)
        case str():
            return _text_2(value.encode("latin-1"))
        case np.ndarray():
            return _array_2(value)
        case Mapping():
            pairs = b"".join(_python_2(key) + _python_2(item) for key, item in value.items())
            return b"}q\x01(" + pairs + b"u"
        case Sequence():
            return b"]q\x02(" + b"".join(_python_2(item) for item in value) + b"e"
    raise TypeError(type(value))


def _text_2(text: bytes) -> bytes:
    return (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))) + text


def _array_2(array: np.ndarray) -> bytes:
    shape = b"".join(b"J" + struct.pack("<i", size) for size in array.shape)
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
        b"(K\x01" + shape + b"\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + _text_2(array.tobytes()) + b"tb"
    )


def dumped_with(protocol: int) -> Pickle:
    return lambda document: pickle.dumps(dict(document), protocol=protocol)


def packed(files: Mapping[str, bytes], how: str = "w:gz", folder: str = "cifar-10-batches-py") -> bytes:
    """A tar, by tarfile's mode, or a zip of one folder."""
    buffer = io.BytesIO()
    if how == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(f"{folder}/{name}", content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode=how) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
