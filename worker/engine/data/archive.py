"""Members of an uploaded zip or tar archive, read one by one and, for images and arrays, never unpacked to disk.

Paths are checked by rules of our own, links and special files are refused, and counts and sizes have caps that hold
before anything is decompressed on an archive's own word.
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from worker.engine.errors import EngineError

MAX_MEMBERS = 2_000_000
MAX_MEMBER_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 64 * 2**30
MAX_RATIO = 500  # unpacked : packed, looked at from RATIO_FLOOR_BYTES on
RATIO_FLOOR_BYTES = 256 * 2**20
MAX_DIRECTORY_BYTES = 256 * 2**20  # of a zip file, which is read into memory at once
MAX_PATH_LENGTH = 1024

_GZIP, _XZ, _ZIP = b"\x1f\x8b", b"\xfd7zXZ\x00", b"PK\x03\x04"
_TAR_MAGIC_AT = 257
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,  # by zipfile: a version or a feature that it does not know
    lzma.LZMAError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    struct.error,
)


@dataclass(frozen=True)
class Member:
    """A regular file: its path, and its content or why that was not read."""

    path: PurePosixPath
    content: bytes
    refused: str = ""


def is_zip(path: Path) -> bool:
    return _head(path).startswith(_ZIP)


def is_npz(path: Path) -> bool:
    """A zip file of NumPy arrays only."""
    if not is_zip(path):
        return False
    _check_directory_size(path)
    try:
        with _told_if_broken(), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except EngineError:
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def is_tar(path: Path) -> bool:
    """A tar file, plain or in gzip or xz."""
    try:
        with _tar_stream(path, tarfile.RECORDSIZE) as stream:
            return stream.read(_TAR_MAGIC_AT + 5)[_TAR_MAGIC_AT:] == b"ustar"
    except (*_BROKEN, OSError):
        return False


def members(path: Path, contents: bool = True, max_bytes: int | None = None) -> Iterator[Member]:
    """The regular files of an archive in stored order, or with `contents` off only their paths. Those of more than
    `max_bytes`, or MAX_MEMBER_BYTES, are not read. Raises EngineError where the archive is hostile or broken.
    """
    with _told_if_broken():
        yield from (_zip_members if is_zip(path) else _tar_members)(path, contents, max_bytes or MAX_MEMBER_BYTES)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file whose members may be read. Raises EngineError where it is hostile or broken, also within the block."""
    _check_directory_size(path)
    with _told_if_broken(), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _hostile(f"{info.filename!r} is a link or a device")
            if reason := _unreadable(info):
                raise _hostile(f"{info.filename!r} cannot be read, {reason}")
        yield archive


@contextmanager
def _told_if_broken() -> Iterator[None]:
    try:
        yield
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:  # EINVAL: a seek to before the start
            raise
        raise EngineError(
            "broken_archive", f"The archive cannot be read to its end: {error}.", "Pack it again and upload it again."
        ) from error


class _Meter:
    """Counts members and unpacked bytes against the caps."""

    def __init__(self, packed_bytes: int) -> None:
        self.packed_bytes, self.members, self.bytes = packed_bytes, 0, 0

    def count(self, size: int) -> None:
        self.members += 1
        self.bytes += size
        if self.members > MAX_MEMBERS:
            raise _too_large(f"more than {MAX_MEMBERS} members")
        if self.bytes > MAX_TOTAL_BYTES:
            raise _too_large(f"more than {MAX_TOTAL_BYTES >> 30} GiB unpacked")
        if self.bytes > RATIO_FLOOR_BYTES and self.bytes > MAX_RATIO * self.packed_bytes:
            raise _too_large(f"more than {MAX_RATIO} times its size unpacked")


class _CappedStream(io.RawIOBase):
    """A stream that refuses single reads no honest tar needs: an extended header may claim any size."""

    def __init__(self, stream: IO[bytes], max_bytes: int) -> None:
        self._stream, self._max_bytes = stream, max_bytes

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > self._max_bytes + tarfile.RECORDSIZE:
            raise _too_large(f"a header of more than {self._max_bytes >> 20} MiB")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()


def _tar_members(path: Path, contents: bool, max_bytes: int) -> Iterator[Member]:
    meter = _Meter(path.stat().st_size)
    with _tar_stream(path, max_bytes) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # tarfile remembers every member otherwise
            meter.count(info.size)
            name = safe_path(info.name)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise _hostile(f"{info.name!r} is a link, a device or a sparse file")
            if info.size > max_bytes:
                yield Member(name, b"", _oversized(max_bytes))
                continue
            file = archive.extractfile(info) if contents else None
            yield Member(name, b"" if file is None else file.read(info.size))


def _zip_members(path: Path, contents: bool, max_bytes: int) -> Iterator[Member]:
    _check_directory_size(path)
    meter = _Meter(path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            meter.count(info.file_size)
            name = safe_path(info.filename)
            if info.is_dir():
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG}:
                raise _hostile(f"{info.filename!r} is a link or a device")
            yield Member(name, *_zip_content(archive, info, max_bytes)) if contents else Member(name, b"")


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> tuple[bytes, str]:
    """A member's bytes, or why they are not read."""
    if reason := _unreadable(info):
        return b"", reason
    if info.file_size > max_bytes:
        return b"", _oversized(max_bytes)
    with archive.open(info) as file:
        return file.read(info.file_size), ""


def _unreadable(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 0x1:
        return "it is encrypted"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return "its compression is neither deflate nor none"
    return ""


def _check_directory_size(path: Path) -> None:
    """Look at the size of a zip's directory before Python reads all of it."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 2**16 - 22, 0))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at >= 0 and len(tail) >= at + 16:
        (size,) = struct.unpack_from("<I", tail, at + 12)
        if size == 0xFFFFFFFF:  # the true size stands in the zip64 record just before
            at64 = tail.rfind(b"PK\x06\x06", 0, at)
            size = struct.unpack_from("<Q", tail, at64 + 40)[0] if 0 <= at64 <= len(tail) - 48 else size
        if size > MAX_DIRECTORY_BYTES:
            raise _too_large("a directory with too many members")


def _tar_stream(path: Path, max_bytes: int) -> _CappedStream:
    head = _head(path)
    if head.startswith(_GZIP):
        return _CappedStream(gzip.open(path, "rb"), max_bytes)  # type: ignore[arg-type]
    if head.startswith(_XZ):
        return _CappedStream(lzma.open(path, "rb"), max_bytes)
    return _CappedStream(path.open("rb"), max_bytes)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def safe_path(name: str) -> PurePosixPath:
    r"""The member's path, if it stays inside the archive, as text: bytes that are not UTF-8 become \xNN.

    Raises EngineError. No backslash is left in a checked path, so two names that differ stay different.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    drive = path.parts[:1] and path.parts[0].endswith(":")
    if path.is_absolute() or drive or ".." in path.parts or "\0" in name or len(name) > MAX_PATH_LENGTH:
        raise _hostile(f"the path {name[:100]!r} leads out of it, or is too long")
    return PurePosixPath(str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _oversized(max_bytes: int) -> str:
    return f"it is larger than {max_bytes >> 20} MiB"


def _hostile(what: str) -> EngineError:
    return EngineError("unsafe_archive", f"The archive was refused: {what}.", "Pack plain files in plain folders only.")


def _too_large(what: str) -> EngineError:
    return EngineError("archive_too_large", f"The archive was refused: it has {what}.", "Upload a smaller archive.")
