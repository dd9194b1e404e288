"""The private folder of one attempt: order and inputs go in, results and artifacts come out."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

_MAX_DOCUMENT_BYTES = 64 * 2**20
_ARTIFACT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json", ".svg": "image/svg+xml"}


def media_type(artifact: Path) -> str:
    return _MEDIA_TYPES.get(artifact.suffix, "application/octet-stream")


class UntrustedOutput(Exception):
    """A child left something that is no plain file of its own: it is not to be believed."""


@dataclass(frozen=True)
class WorkFolder:
    """Paths below `root`. The child reads all of it and writes `out`, `state` and `tmp` only."""

    root: Path

    @property
    def order(self) -> Path:
        return self.root / "order.json"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def output(self) -> Path:
        """What the child prints: libraries' warnings, a traceback."""
        return self.root / "output.txt"

    @property
    def out(self) -> Path:
        """Artifacts, and nothing else."""
        return self.root / "out"

    @property
    def state(self) -> Path:
        """Documents and files that stages leave for those after them."""
        return self.root / "state"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def result(self) -> Path:
        return self.state / "result.json"

    @property
    def failure(self) -> Path:
        return self.state / "failure.json"

    @property
    def parts(self) -> Path:
        """What a child asks other workers for."""
        return self.state / "parts.json"

    @property
    def writable(self) -> tuple[Path, ...]:
        return (self.out, self.state, self.tmp)

    def create(self) -> None:
        """Make it empty, for this user only."""
        self.remove()
        self.root.mkdir(mode=0o700, parents=True)
        for folder in (self.inputs, *self.writable):
            folder.mkdir()

    def remove(self) -> None:
        if self.root.exists():
            shutil.rmtree(self.root)

    def read_document(self, path: Path) -> bytes | None:
        """A document that the child wrote; None where there is none. Raises UntrustedOutput."""
        try:
            with self.open_plain(path, _MAX_DOCUMENT_BYTES) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def open_plain(self, path: Path, limit_bytes: int | None = None) -> BinaryIO:
        """A file that the child wrote, and may still write to. Raises FileNotFoundError, UntrustedOutput."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UntrustedOutput(f"{path.name}: {error.strerror}") from error
        file = os.fdopen(descriptor, "rb")
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or (limit_bytes is not None and facts.st_size > limit_bytes):
            file.close()
            raise UntrustedOutput(f"{path.name} is no regular file of at most {limit_bytes} bytes")
        return file

    def artifacts(self) -> list[Path]:
        """The files in `out`, by name. Raises UntrustedOutput for links, pipes and odd names."""
        files = sorted(self.out.iterdir())
        for file in files:
            facts = file.lstat()
            if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or not _ARTIFACT_NAME.fullmatch(file.name):
                raise UntrustedOutput(f"{file.name!r} in the output folder is no plain file with a plain name")
        return files

    def output_tail(self, limit_bytes: int = 4000) -> str:
        """The end of what the child printed."""
        if not self.output.exists():
            return ""
        with self.output.open("rb") as file:
            file.seek(max(0, self.output.stat().st_size - limit_bytes))
            return file.read().decode(errors="replace")


@contextmanager
def occupied(folder: WorkFolder) -> Iterator[None]:
    """The folder, made and removed by the block, which no other process takes for a leftover meanwhile.

    The kernel drops the lock with the process that holds it, however that ends. Raises OSError.
    """
    with _locked(folder.root.parent):
        folder.create()
        lock = os.open(folder.root, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        try:
            folder.remove()
        finally:
            os.close(lock)


def remove_leftovers(work: Path) -> int:
    """Delete the folders in `work` whose process is gone; how many. Those in use stay, whoever uses them."""
    removed = 0
    with _locked(work):
        for root in sorted(path for path in work.iterdir() if path.is_dir()):
            removed += _remove_if_left(root)
    if removed:
        logger.info("removed %s work folders that killed workers had left", removed)
    return removed


def _remove_if_left(root: Path) -> bool:
    with suppress(FileNotFoundError):
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(root)
            return True
        except BlockingIOError:
            return False
        except OSError as error:  # its child is not quite dead yet, and writes: the next time, then
            logger.warning("%s stays for now: %s", root, error)
        finally:
            os.close(lock)
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """`folder`, made where it is missing, for this block alone: nobody finds a folder made but not yet occupied."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
