"""Files on their way out: their digests, and where uploads that broke off are remembered."""

import base64
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from espalier.errors import DigestMismatch

CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


@dataclass(frozen=True)
class LocalFile:
    """A file as it is when it is sent."""

    path: Path
    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "LocalFile":
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(path, file.tell(), digest)

    @property
    def repr_digest(self) -> str:
        """As RFC 9530 writes it."""
        return f"sha-256=:{base64.b64encode(bytes.fromhex(self.sha256)).decode()}:"


class Arrival:
    """A file on its way in: it appears at its path whole, or not at all."""

    def __init__(self, path: Path, expected_bytes: int) -> None:
        self.expected_bytes = expected_bytes
        self.size_bytes = 0
        self._path = path
        self._partial = path.with_name(f".{path.name}.part")
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        self._file = self._partial.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        return self.size_bytes >= self.expected_bytes

    def add(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)

    def keep(self, name: str, sha256: str) -> None:
        """Give it its name. Raises DigestMismatch."""
        self._file.close()
        if self._digest.hexdigest() != sha256:
            raise DigestMismatch(name, sha256, self._digest.hexdigest())
        self._partial.replace(self._path)


def metadata(values: Mapping[str, str]) -> str:
    """An Upload-Metadata header."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def state_folder() -> Path:
    """Where this user's programs keep what is to outlive them: XDG_STATE_HOME, or ~/.local/state."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "espalier"


@dataclass(frozen=True)
class Unfinished:
    """Where each upload that broke off goes on, by a fingerprint of service, file and purpose."""

    folder: Path

    @staticmethod
    def fingerprint(*facts: str) -> str:
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    def recall(self, fingerprint: str) -> str | None:
        """The upload's path, if one was begun."""
        try:
            return (self.folder / fingerprint).read_text().strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def remember(self, fingerprint: str, upload: str) -> None:
        with suppress(OSError):  # without a place to write, an upload is resumed by this process only
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial = self.folder / f".{fingerprint}.{os.getpid()}"
            partial.write_text(upload)
            partial.replace(self.folder / fingerprint)

    def forget(self, fingerprint: str) -> None:
        with suppress(OSError):
            (self.folder / fingerprint).unlink()
