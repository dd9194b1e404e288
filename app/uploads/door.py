"""Cheap checks at the door: what the two ends of a file, and its outermost frame, say about it.

Nothing is parsed here beyond lengths and names: that is the inspector's work, in a sandbox. These checks exist so
that whoever sends the wrong file hears so at once, together with what to send instead.
"""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from app.uploads.errors import EmptyFile, TruncatedFile, UnsafeFormat, WrongFormat
from app.uploads.onnx_frame import check_frame
from models_store.documents.inspection import DatasetFormat

ModelFormat = Literal["onnx", "onnx_zip", "torchvision"]
ARCHIVES: tuple[DatasetFormat, ...] = ("image_folder", "cifar_python", "cifar_binary")

HEAD_BYTES = 4096
TAIL_BYTES = 2**18  # a zip archive lists its members at its end
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself

SEND_ONNX = "Export the model to ONNX, such as torch.onnx.export(model, inputs, 'model.onnx'), and send that file."
SEND_SAFETENSORS = (
    "Write the weights with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors') and send that "
    "file with format=torchvision and architecture=NAME."
)
SEND_DATASET = (
    "Send a zip, tar, tar.gz or tar.xz archive with one folder of images per class, a CIFAR archive, "
    "or a file of numpy.savez('data.npz', x=images, y=labels)."
)

UNKNOWN = "of no format known here"

# What to call a file that is not what was asked for.
SIGNATURES = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\xfd7zXZ\0", "an xz archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x89HDF\r\n", "an HDF5 file (Keras)"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x93NUMPY", "a single numpy array"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"version https://git-lfs", "a Git LFS pointer and not the file itself (fetch it with `git lfs pull`)"),
)

BINARY_PICKLE = re.compile(rb"\x80[\x02-\x05]")
TEXT_PICKLE = re.compile(rb"\(?[dl]p0\n|\(?c[\w.]+\n[\w.]+\n")
CODE_IN_ZIP = (
    (re.compile(rb"/constants\.pkl|/code/__torch__"), "a TorchScript archive"),
    (re.compile(rb"/archive_format|serialized_exported_program\.json"), "a .pt2 archive (torch.export)"),
    (re.compile(rb"[\w.-]/data\.pkl"), "a PyTorch checkpoint (a zip of pickles)"),
)


@dataclass(frozen=True)
class Ends:
    """The two ends of a file; they overlap in a small one."""

    head: bytes
    tail: bytes


def check_model(path: Path, format: ModelFormat) -> None:
    """Raise EmptyFile, UnsafeFormat, WrongFormat or TruncatedFile where this cannot be a model of that format."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        ends = _read_ends(file, size_bytes)
        if code := _runs_code(ends):
            raise UnsafeFormat(f"The file is {code}.", SEND_SAFETENSORS if format == "torchvision" else SEND_ONNX)
        if format == "onnx":
            _check_onnx(file, size_bytes, ends)
        elif format == "onnx_zip":
            _check_zip(ends)
        else:
            _check_safetensors(size_bytes, ends)


def detect_dataset(path: Path, named: DatasetFormat | None) -> DatasetFormat:
    """The format of a dataset file: the one named, or else what it looks like, which for every archive is a folder of
    images until its inspection has looked inside. Raises the errors of `check_model`, also where it is not the one
    named.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        ends = _read_ends(file, size_bytes)
    if code := _runs_code(ends):
        raise UnsafeFormat(f"The file is {code}.", SEND_DATASET)
    found = _dataset_format(ends)
    if found is None:
        raise WrongFormat(f"The file is {_looks_like(ends.head)}.", SEND_DATASET)
    if named is not None and found in ARCHIVES and named in ARCHIVES:
        return named
    if named not in (None, found):
        raise WrongFormat(f"The file is of format {found}, not {named}.", "Leave `format` out, or name the right one.")
    return found


def _read_ends(file: BinaryIO, size_bytes: int) -> Ends:
    if size_bytes == 0:
        raise EmptyFile("The file has 0 bytes.")
    head = file.read(HEAD_BYTES)
    file.seek(max(0, size_bytes - TAIL_BYTES))
    return Ends(head, file.read(TAIL_BYTES))


def _runs_code(ends: Ends) -> str | None:
    """What to call a file that runs code when loaded; None for any other."""
    if BINARY_PICKLE.match(ends.head) or TEXT_PICKLE.match(ends.head):
        return "a Python pickle"
    if ends.head.startswith(b"PK\x03\x04"):
        return next((name for sign, name in CODE_IN_ZIP if sign.search(ends.head) or sign.search(ends.tail)), None)
    return None


def _check_onnx(file: BinaryIO, size_bytes: int, ends: Ends) -> None:
    if _safetensors_header_bytes(ends.head):
        raise WrongFormat("The file is a safetensors file.", "Send it with format=torchvision and architecture=NAME.")
    if (other := _looks_like(ends.head)) != UNKNOWN:
        raise WrongFormat(f"The file is {other}.", SEND_ONNX)
    check_frame(file, size_bytes)


def _check_zip(ends: Ends) -> None:
    if not ends.head.startswith(b"PK\x03\x04"):
        raise WrongFormat(f"The file is {_looks_like(ends.head)}; format=onnx_zip takes a zip archive.", SEND_ONNX)
    if b"PK\x05\x06" not in ends.tail:
        raise TruncatedFile("The zip archive has no end.")


def _check_safetensors(size_bytes: int, ends: Ends) -> None:
    header_bytes = _safetensors_header_bytes(ends.head)
    if header_bytes is None:
        hint = f"{SEND_SAFETENSORS} An ONNX file is sent with format=onnx."
        raise WrongFormat(f"The file is {_looks_like(ends.head)}; format=torchvision takes safetensors weights.", hint)
    if 8 + header_bytes > size_bytes:
        raise TruncatedFile(f"The file ends {8 + header_bytes - size_bytes:,} bytes before its table of contents does.")


def _safetensors_header_bytes(head: bytes) -> int | None:
    """Length of the JSON header that a safetensors file begins with; None where the file is no such file."""
    length = int.from_bytes(head[:8], "little")
    return length if head[8:9] == b"{" and 2 <= length <= MAX_SAFETENSORS_HEADER_BYTES else None


def _dataset_format(ends: Ends) -> DatasetFormat | None:
    if ends.head.startswith(b"PK\x03\x04"):
        if b"PK\x05\x06" not in ends.tail:
            raise TruncatedFile("The zip archive has no end.")
        name_bytes = int.from_bytes(ends.head[26:28], "little")
        return "npz" if ends.head[30 : 30 + name_bytes].endswith(b".npy") else "image_folder"
    tar = ends.head.startswith((b"\x1f\x8b", b"\xfd7zXZ\0")) or ends.head[257:262] == b"ustar"
    return "image_folder" if tar else None


def _looks_like(head: bytes) -> str:
    """What to call a file by its first bytes."""
    for offset, signature, name in SIGNATURES:
        if head.startswith(signature, offset):
            return name
    if re.match(rb"\s*<(!doctype|html)", head, re.IGNORECASE):
        return "a web page; a download link was probably saved instead of the file behind it"
    return "a text file" if _is_text(head) else UNKNOWN


def _is_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)
