"""A claim kept alive from a thread of its own, so that no download and no slow step can lose the job."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self

from sqlalchemy.exc import DBAPIError

from models_store.database import Database
from models_store.documents.job import JobState
from models_store.errors import LeaseLost
from models_store.jobs import Claim, JobRepository
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


class Lease:
    """Renews the lease every `heartbeat_s` and looks for a cancel every `poll_s`, until the block ends.

    While the database is away the lease is ours until `lease_s` after the last renewal: then another worker may
    have the job, and `lost` says so.
    """

    def __init__(self, database: Database, claim: Claim, settings: WorkerSettings) -> None:
        self._database = database
        self._claim = claim
        self._settings = settings
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._cancelled = threading.Event()
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name=f"lease {claim.job_id}", daemon=True)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    @property
    def cancel_requested(self) -> bool:
        return self._cancelled.is_set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._ended.wait(self._settings.poll_s):
            try:
                self._look()
            except LeaseLost:
                self._lost.set()
                return
            except DBAPIError as error:
                logger.warning("%s: the lease could not be renewed: %s", self._claim.job_id, error.orig)
                if time.monotonic() - self._renewed_at > self._settings.lease_s:
                    self._lost.set()
                    return

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._renewed_at >= self._settings.heartbeat_s:
            with self._database.session() as session:
                beat = JobRepository(session).heartbeat(self._claim, self._settings.lease_s)
            self._renewed_at = now
            cancelled = beat.cancel_requested
        else:
            with self._database.session(read_only=True) as session:
                job = JobRepository(session).get(self._claim.job_id)
            cancelled = job is not None and job.state == JobState.CANCELLING
        if cancelled:
            self._cancelled.set()
