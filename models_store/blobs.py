"""The blob store: files named by the SHA-256 of their bytes, in a local folder or an S3 bucket.

A blob is written once, becomes visible whole, and never changes; so putting the same bytes twice is harmless, and
a crash in the middle leaves at most a file in `incoming_dir`, which nothing refers to.

Blobs without a scope are shared by all that have the same bytes. A scope, such as a job's checkpoints, has blobs of its
own, so that its owner may delete them without asking who else needs them.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.exceptions import BaseError as ObstoreError
from obstore.store import LocalStore, S3Store

from models_store.errors import BlobCorrupt, BlobMissing, BlobsUnavailable
from models_store.settings import StoreSettings

CHUNK_BYTES = 4 * 1024 * 1024
UPLOAD_PART_BYTES = 16 * 1024 * 1024  # S3 takes at most 10,000 parts: files up to 160 GB
UPLOAD_PARTS_AT_ONCE = 4
S3_CONNECT_TIMEOUT = timedelta(seconds=5)
S3_REQUEST_TIMEOUT = timedelta(seconds=120)  # for one chunk, or one part
S3_RETRIES = 4
S3_RETRY_TIMEOUT = timedelta(seconds=30)
ASIDE = "aside/"
YOUNG = timedelta(hours=1)
_SCOPE = re.compile(r"[a-z]+/[a-z0-9_]+/")
_KEY = re.compile(rf"(?:{_SCOPE.pattern})?sha256/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})")


@dataclass(frozen=True)
class Blob:
    """A stored file."""

    key: str
    sha256: str
    size_bytes: int


class BlobStore:
    """Blobs under `url`: a folder, or `s3://bucket/prefix` with credentials and endpoint from `AWS_*`.

    `incoming_dir` is where files are written before they are complete; of a local store it lies inside its folder,
    so that the last step is a rename.
    """

    def __init__(self, url: str, incoming_dir: Path | None = None) -> None:
        self.url = url
        if "://" in url and not url.startswith("s3://"):
            raise ValueError(f"blobs_url must be a folder or s3://bucket/prefix, not {url}")
        self._folder = None if "://" in url else Path(url).absolute()
        try:
            self._store = _open(url, self._folder)
            if self._folder is not None:
                incoming_dir = self._folder / "incoming"
            self.incoming_dir = incoming_dir or Path(tempfile.gettempdir()) / "espalier-incoming"
            self.incoming_dir.mkdir(parents=True, exist_ok=True)
        except (ObstoreError, OSError) as error:
            raise BlobsUnavailable(f"cannot open the blob store {url}: {error}") from error

    @classmethod
    def from_settings(cls, settings: StoreSettings) -> "BlobStore":
        return cls(settings.blobs_url, settings.incoming_dir)

    def put_file(self, path: Path) -> Blob:
        """Store a copy of the file at `path`; the same bytes may be there already."""
        with path.open("rb") as source:
            return self.put(source)

    def put(self, source: BinaryIO, scope: str = "") -> Blob:
        """Store what is left to read of `source`; in a scope, such as `checkpoints/<job>/`, if one is given."""
        with self._incoming() as staged:
            with self._errors("copy a file"), staged.open("xb") as copy:
                shutil.copyfileobj(source, copy, CHUNK_BYTES)
            return self.adopt(staged, scope)

    def adopt(self, path: Path, scope: str = "", sha256: str | None = None) -> Blob:
        """Turn the complete file at `path`, in `incoming_dir`, into a blob: as `put_file`, without a second copy.

        `sha256`: of its bytes, where they were hashed as they were written. The file is gone afterwards, unless this
        raises.
        """
        if path.parent != self.incoming_dir:
            raise ValueError(f"{path} does not lie in {self.incoming_dir}: use put_file")
        with self._errors(f"store {path}"):
            digest, size = _flushed(path, sha256)
            blob = Blob(_key(digest, scope), digest, size)
            if not self._renewed(blob.key):
                self._publish(path, blob.key)
            path.unlink(missing_ok=True)
            return blob

    def fetch(self, key: str, destination: Path) -> None:
        """Write the blob to the file `destination`, checking its digest on the way.

        A copy, never a link: what is done to it cannot reach the stored bytes. Raises `BlobMissing`, `BlobCorrupt`.
        """
        digest = hashlib.sha256()
        partial = destination.with_name(f".{destination.name}.partial")
        try:
            with partial.open("wb") as file:
                for chunk in self.stream(key):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != _digest(key):
                raise BlobCorrupt(f"the bytes of {key} have the digest {digest.hexdigest()}: restore it from a backup")
            partial.replace(destination)
        finally:
            partial.unlink(missing_ok=True)

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in chunks. Raises `BlobMissing` at once.

        Both bounds lie within the blob, else `ValueError`.
        """
        size = self.size(key)
        end = size if end is None else end
        if not 0 <= start <= end <= size:
            raise ValueError(f"bytes {start} to {end} are not within the {size} bytes of {key}")
        return self._stream(key, start, end)

    def size(self, key: str) -> int:
        """In bytes. Raises `BlobMissing`; where the whole folder is away, which a disk may be, `BlobsUnavailable`."""
        _digest(key)
        try:
            with self._errors(f"look up {key}"), _missing(key):
                return obstore.head(self._store, key)["size"]
        except BlobMissing:
            with self._errors(f"look up {key}"):
                if self._folder is not None:
                    self.incoming_dir.stat()
            raise

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except BlobMissing:
            return False
        return True

    def delete(self, key: str) -> None:
        """Delete the blob, if it is there."""
        _digest(key)
        with self._errors(f"delete {key}"), suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def scopes(self, kind: str) -> list[str]:
        """All scopes of a kind, such as `checkpoints`, that have blobs."""
        with self._errors(f"list {kind}"):
            found = obstore.list_with_delimiter(self._store, kind)["common_prefixes"]
        return [f"{prefix.rstrip('/')}/" for prefix in found]

    def delete_scope(self, scope: str) -> int:
        """Delete every blob of a scope; how many."""
        _check_scope(scope)
        with self._errors(f"delete {scope}"):
            keys = [found["path"] for found in obstore.list(self._store, scope).collect()]
            for key in keys:
                self.delete(key)
            if self._folder is not None:  # the empty folders, too, or they would be listed for ever
                shutil.rmtree(self._folder / scope, ignore_errors=True)
        return len(keys)

    def check(self) -> None:
        """Raise `BlobsUnavailable` where the store cannot be listed, or a new file cannot be written."""
        with self._errors("use the blob store"):
            next(iter(obstore.list(self._store, "sha256", chunk_size=1)), None)
            with self._incoming() as probe:
                probe.write_bytes(b"probe")

    def remove_abandoned(self, older_than_s: float = 24 * 3600) -> int:
        """Delete incoming files that nobody has written to for this long, which crashes left; how many."""
        removed = 0
        for path in self.incoming_dir.iterdir():
            with suppress(FileNotFoundError):  # another sweeper was faster, or the upload just ended
                if path.is_file() and time.time() - path.stat().st_mtime > older_than_s:
                    path.unlink()
                    removed += 1
        return removed

    # Garbage: worker/garbage.py says when.

    def old(self, older_than_s: float) -> Iterator[str]:
        """Keys of shared blobs that nobody has stored or adopted for this long."""
        return self._listed("sha256", older_than_s)

    def set_aside(self, key: str) -> None:
        """Take a shared blob away so that it can still be put back."""
        with self._errors(f"set {key} aside"), suppress(FileNotFoundError):
            obstore.rename(self._store, key, f"{ASIDE}{key}")
            if self._folder is not None:  # a renamed file keeps its age
                os.utime(self._folder / ASIDE / key)

    def aside(self, older_than_s: float = 0.0) -> Iterator[str]:
        """Keys of blobs that were set aside at least so long ago."""
        return (path.removeprefix(ASIDE) for path in self._listed(ASIDE.rstrip("/"), older_than_s))

    def put_back(self, key: str) -> None:
        """Undo `set_aside`; nothing where the same bytes have been stored again meanwhile."""
        if self.exists(key):
            self.delete_aside(key)
            return
        with self._errors(f"put {key} back"), suppress(FileNotFoundError):
            obstore.rename(self._store, f"{ASIDE}{key}", key)

    def delete_aside(self, key: str) -> None:
        """Delete for ever what was set aside."""
        _digest(key)
        with self._errors(f"delete {key}"), suppress(FileNotFoundError):
            obstore.delete(self._store, f"{ASIDE}{key}")

    def _listed(self, prefix: str, older_than_s: float) -> Iterator[str]:
        with self._errors(f"list {prefix}"):
            for batch in obstore.list(self._store, prefix):
                now = datetime.now(UTC)
                yield from (
                    each["path"] for each in batch if (now - each["last_modified"]).total_seconds() >= older_than_s
                )

    def _renewed(self, key: str) -> bool:
        """Whether the blob is there, and is young from now on."""
        if self._folder is not None:
            try:
                os.utime(self._folder / key)
            except FileNotFoundError:
                return False
            return True
        try:
            with _missing(key):
                found = obstore.head(self._store, key)
        except BlobMissing:
            return False
        return datetime.now(UTC) - found["last_modified"] < YOUNG  # an older one is stored again, which renews it

    def _publish(self, staged: Path, key: str) -> None:
        if self._folder is None:
            obstore.put(self._store, key, staged, chunk_size=UPLOAD_PART_BYTES, max_concurrency=UPLOAD_PARTS_AT_ONCE)
            return
        # Not by obstore, which does not fsync: what a committed row names must survive a power failure.
        final = self._folder / key
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o444)
        staged.rename(final)
        for folder in final.parents:
            _fsync_folder(folder)
            if folder == self._folder:
                break

    def _stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        if start == end:
            return
        with self._errors(f"read {key}"), _missing(key):
            # One request for each chunk: a single one would time out under a client that reads slowly.
            for offset in range(start, end, CHUNK_BYTES):
                yield bytes(obstore.get_range(self._store, key, start=offset, end=min(offset + CHUNK_BYTES, end)))

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        """A name for a file that is not yet complete; what is still there at the end is deleted."""
        path = self.incoming_dir / f"{uuid.uuid4().hex}.blob"
        try:
            yield path
        finally:
            with suppress(OSError):  # what stays is abandoned, and removed as such
                path.unlink()

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (ObstoreError, OSError) as error:
            raise BlobsUnavailable(f"cannot {action} ({self.url}): {error}") from error


def _open(url: str, folder: Path | None) -> LocalStore | S3Store:
    if folder is not None:
        return LocalStore(folder, mkdir=True)
    return S3Store.from_url(
        url,
        client_options={
            "connect_timeout": S3_CONNECT_TIMEOUT,
            "timeout": S3_REQUEST_TIMEOUT,
            "allow_http": True,  # where AWS_ENDPOINT_URL says http://, as inside a cluster
        },
        retry_config={"max_retries": S3_RETRIES, "retry_timeout": S3_RETRY_TIMEOUT},
    )


def _key(digest: str, scope: str) -> str:
    if scope:
        _check_scope(scope)
    return f"{scope}sha256/{digest[:2]}/{digest}"


def _check_scope(scope: str) -> None:
    if not _SCOPE.fullmatch(scope):
        raise ValueError(f"not a scope: {scope!r}")


def _digest(key: str) -> str:
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"not a blob key: {key!r}")
    return match[2]


@contextmanager
def _missing(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BlobMissing(f"there is no blob {key}") from error


def _flushed(path: Path, sha256: str | None) -> tuple[str, int]:
    """The SHA-256, computed unless given, and the size in bytes of a file, which is on the disk when this returns."""
    with path.open("rb") as file:
        digest = sha256 or hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return digest, os.fstat(file.fileno()).st_size


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
