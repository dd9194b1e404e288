"""What another attempt can go on from is put away while the child works on, from a thread of its own.

A child names files and their digests and works on at once, so a file may change before it is copied: then its bytes
have another digest, and that checkpoint is passed over for the next one. The row that names the files is written last,
and fenced by the claim.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from models_store.blobs import BlobStore
from models_store.checkpoints import CheckpointRepository, scope
from models_store.database import Database
from models_store.errors import BlobCorrupt, BlobMissing, BlobsUnavailable, LeaseLost
from models_store.jobs import Claim, JobRepository
from worker.work_folder import UntrustedOutput, WorkFolder

logger = logging.getLogger(__name__)


class CheckpointKeeper:
    """Restores a job's last checkpoint and keeps new ones, the newest only. The thread ends with the block."""

    def __init__(self, claim: Claim, database: Database, blobs: BlobStore, folder: WorkFolder) -> None:
        self._claim, self._database, self._blobs, self._folder = claim, database, blobs, folder
        self._scope = scope(claim.job_id)
        self._keys: dict[str, str] = {}  # of the checkpoint that the row names
        self._offered: Mapping[str, str] | None = None
        self._ending = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"checkpoints {claim.job_id}", daemon=True)

    def restore(self) -> bool:
        """Fetch the last checkpoint into the work folder, if there is a whole one. Raises BlobsUnavailable."""
        self._keys = self._fetch(self._claim.job_id)
        return bool(self._keys)

    def borrow(self, job_id: str) -> bool:
        """Fetch the checkpoint of the job that this one is a part of; nothing here becomes its next one."""
        return bool(self._fetch(job_id))

    def has_kept(self, path: Path) -> bool:
        """Whether the row names this file of the work folder, as far as is known."""
        return path.relative_to(self._folder.root).as_posix() in self._keys

    def _fetch(self, job_id: str) -> dict[str, str]:
        with self._database.session(read_only=True) as session:
            keys = CheckpointRepository(session).files(job_id)
        try:
            for path, key in keys.items():
                self._blobs.fetch(key, self._folder.root / path)
        except (BlobMissing, BlobCorrupt) as error:
            logger.warning("%s begins anew, its checkpoint is not whole: %s", self._claim.job_id, error)
            for path in keys:
                (self._folder.root / path).unlink(missing_ok=True)
            return {}
        return keys

    def offer(self, files: Mapping[str, str]) -> None:
        """Keep these files, digests by path, instead of any that still wait."""
        with self._change:
            if self._thread.ident is None:
                self._thread.start()
            self._offered = files
            self._change.notify_all()

    def close(self, keep_last: bool) -> None:
        """Keep what is still offered, or leave it: then what is being kept is not waited for, its claim is over."""
        with self._change:
            self._ending = True
            self._offered = self._offered if keep_last else None
            self._change.notify_all()
        if keep_last and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while (files := self._next()) is not None:
            try:
                self._keep(files)
            except LeaseLost:
                return
            except (BlobsUnavailable, DBAPIError, OSError, UntrustedOutput) as error:
                logger.warning("%s: a checkpoint could not be kept: %s", self._claim.job_id, error)

    def _next(self) -> Mapping[str, str] | None:
        with self._change:
            self._change.wait_for(lambda: self._ending or self._offered is not None)
            files, self._offered = self._offered, None
            return files

    def _keep(self, files: Mapping[str, str]) -> None:
        keys = {path: self._put(path, digest) for path, digest in files.items()}
        whole = {path: key for path, key in keys.items() if key is not None}
        if len(whole) == len(keys):
            with self._database.session() as session:
                JobRepository(session).hold(self._claim)
                CheckpointRepository(session).keep(self._claim.job_id, self._claim.attempt, whole)
            replaced, self._keys = self._keys, whole
        else:
            replaced = whole
        for key in set(replaced.values()) - set(self._keys.values()):
            with suppress(BlobsUnavailable):  # the next retention sweep finds it
                self._blobs.delete(key)

    def _put(self, path: str, digest: str) -> str | None:
        """The key of a file with this digest; None where it has another one by now."""
        known = self._keys.get(path)
        if known is not None and known.endswith(digest):
            return known
        try:
            with self._folder.open_plain(self._folder.root / path) as file:
                blob = self._blobs.put(file, self._scope)
        except FileNotFoundError:
            return None
        if blob.sha256 == digest:
            return blob.key
        self._blobs.delete(blob.key)
        return None
