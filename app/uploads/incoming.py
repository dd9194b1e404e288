"""One file on its way in: written to disk and hashed in the same pass, in constant memory."""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from starlette.concurrency import run_in_threadpool

from app.uploads.errors import UploadTooLarge

BUFFER_BYTES = 2**20


@dataclass(frozen=True)
class ReceivedFile:
    """A complete file in the blob store's incoming folder."""

    path: Path
    sha256: str
    size_bytes: int


class IncomingFile:
    """Takes a file's bytes in order. Disk and hash work happens off the event loop, one buffer at a time."""

    def __init__(self, path: Path, file: IO[bytes], max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._path = path
        self._file = file
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._size_bytes = 0

    async def write(self, chunk: bytes) -> None:
        """Append bytes. Raises UploadTooLarge at the first byte over the limit."""
        self._size_bytes += len(chunk)
        if self._size_bytes > self.max_bytes:
            raise UploadTooLarge(f"The file is larger than the {self.max_bytes:,} bytes accepted here.")
        self._buffer += chunk
        if len(self._buffer) >= BUFFER_BYTES:
            await run_in_threadpool(self._flush)

    @property
    def size_bytes(self) -> int:
        """What has arrived so far."""
        return self._size_bytes

    async def complete(self) -> ReceivedFile:
        """The whole file, with its digest, readable at its path."""
        await run_in_threadpool(self._flush)
        return self._received()

    def copy(self, chunks: Iterable[bytes]) -> ReceivedFile:
        """Take the whole file from `chunks`, in a thread where that may last."""
        for chunk in chunks:
            self._size_bytes += len(chunk)
            self._buffer += chunk
            self._flush()
        return self._received()

    def _received(self) -> ReceivedFile:
        return ReceivedFile(self._path, self._digest.hexdigest(), self._size_bytes)

    def _flush(self) -> None:
        self._digest.update(self._buffer)
        self._file.write(self._buffer)
        self._file.flush()
        self._buffer.clear()


@contextmanager
def incoming_file(folder: Path, max_bytes: int) -> Iterator[IncomingFile]:
    """A fresh file in `folder`, gone again at exit unless it was moved away by then."""
    with tempfile.NamedTemporaryFile(prefix="upload-", dir=folder, delete=False) as file:
        path = Path(file.name)
        try:
            yield IncomingFile(path, file.file, max_bytes)
        finally:
            path.unlink(missing_ok=True)
