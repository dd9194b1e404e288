"""One file on its way in: written to disk and hashed in the same pass, in constant memory."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from app.uploads.errors import UploadTooLarge
from models_store.errors import BlobsUnavailable

BUFFER_BYTES = 2**20
WRITERS = ThreadPoolExecutor(16, thread_name_prefix="upload")


class Room(Protocol):
    """Where bytes may go, and how many."""

    def require(self, size_bytes: int) -> None:
        """Raises where that many are too many."""


@dataclass(frozen=True)
class ReceivedFile:
    """A complete file in the blob store's incoming folder."""

    path: Path
    sha256: str
    size_bytes: int


class IncomingFile:
    """Takes a file's bytes in order. Hash and disk work on one buffer, in a thread, while the next one fills."""

    def __init__(self, path: Path, file: IO[bytes], max_bytes: int, room: Room | None = None) -> None:
        self.max_bytes = max_bytes
        self._room = room
        self._path = path
        self._file = file
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._size_bytes = 0
        self._writing: Future[None] | None = None

    @property
    def size_bytes(self) -> int:
        """What has arrived so far."""
        return self._size_bytes

    async def write(self, chunk: bytes) -> None:
        """Append bytes. Raises UploadTooLarge, or what its room raises, at the first byte over a limit."""
        self._size_bytes += len(chunk)
        if self._size_bytes > self.max_bytes:
            raise UploadTooLarge(f"The file is larger than the {self.max_bytes:,} bytes accepted here.")
        if self._room is not None:
            self._room.require(self._size_bytes)
        self._buffer += chunk
        if len(self._buffer) >= BUFFER_BYTES:
            await self._flush()

    async def complete(self) -> ReceivedFile:
        """The whole file, with its digest, readable at its path."""
        await self._flush()
        await self._written()
        return self._received()

    def copy(self, chunks: Iterable[bytes]) -> ReceivedFile:
        """Take the whole file from `chunks`, in a thread where that may last."""
        for chunk in chunks:
            self._size_bytes += len(chunk)
            self._put(chunk)
        return self._received()

    def settle(self) -> None:
        """Wait for the thread that may still be writing, whatever came of it."""
        if self._writing is not None:
            wait([self._writing])

    async def _flush(self) -> None:
        await self._written()
        self._writing = WRITERS.submit(self._put, bytes(self._buffer))
        self._buffer.clear()

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.wrap_future(self._writing)

    def _put(self, data: bytes) -> None:
        begin = self._file.tell()
        self._digest.update(data)
        self._file.write(data)
        self._file.flush()
        # Begins to write to the disk now, without waiting: else all of it would wait for the flush at the end.
        os.posix_fadvise(self._file.fileno(), begin, len(data), os.POSIX_FADV_DONTNEED)

    def _received(self) -> ReceivedFile:
        return ReceivedFile(self._path, self._digest.hexdigest(), self._size_bytes)


@contextmanager
def incoming_file(folder: Path, max_bytes: int, room: Room | None = None) -> Iterator[IncomingFile]:
    """A fresh file in `folder`, gone again at exit unless it was moved away by then. It takes `max_bytes` at most, and
    no more than there is room for. Raises BlobsUnavailable."""
    try:
        fresh = tempfile.NamedTemporaryFile(prefix="upload-", dir=folder, delete=False)  # noqa: SIM115  just below
    except OSError as error:
        raise BlobsUnavailable(f"cannot begin a file in {folder}: {error}") from error
    with fresh as file:
        path = Path(file.name)
        incoming = IncomingFile(path, file.file, max_bytes, room)
        try:
            yield incoming
        finally:
            incoming.settle()
            path.unlink(missing_ok=True)
