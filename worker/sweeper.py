"""The sweeper: `python -m worker.sweeper` takes jobs from dead workers and rings again for queued ones.

One is enough, several do no harm. Without it a job whose ring was lost would wait for the next ring.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import time
from dataclasses import dataclass
from threading import Event

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis, RedisError
from sqlalchemy.exc import DBAPIError

from models_store import retention, uploads
from models_store.blobs import BlobStore
from models_store.checkpoints import SCOPES, CheckpointRepository, scope
from models_store.database import Database
from models_store.errors import BlobsUnavailable
from models_store.jobs import JobRepository
from models_store.presence import Presence
from models_store.retention import Policy
from models_store.webhooks import WebhookRepository
from worker import garbage
from worker.celery_app import DELIVER, DELIVERIES, MAX_RINGS, RING, celery_app
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

# Of a job that ended badly: as long, its owner may want another attempt to go on from there.
_CHECKPOINT_RETENTION_S = 7 * 24 * 3600
_SCOPES_AT_ONCE = 500


@dataclass(frozen=True)
class Swept:
    """What one sweep found and did."""

    reaped: tuple[str, ...]
    queued: int
    rings: int


def sweep(database: Database, application: Celery) -> Swept:
    """Reap expired leases, then see to it that as many rings wait as jobs do.

    Raises RedisError or kombu's OperationalError where the broker is away: by then the leases are reaped.
    """
    with database.session() as session:
        reaped = JobRepository(session).reap_expired()
    with database.session(read_only=True) as session:
        queued = JobRepository(session).queued_count()
        news = WebhookRepository(session).any_due()
    wanted = min(queued, MAX_RINGS)
    rings = max(0, wanted - _waiting(application, application.conf.task_default_queue)) if wanted else 0
    for _ in range(rings):
        application.send_task(RING)
    if news and not _waiting(application, DELIVERIES):
        application.send_task(DELIVER)
    return Swept(tuple(reaped), queued, rings)


def run(database: Database, application: Celery, blobs: BlobStore, settings: WorkerSettings, stop: Event) -> None:
    """Sweep every `sweep_s` seconds and tidy every `tidy_s` until `stop` is set, through outages of what it needs."""
    tidied_at = -math.inf
    while not stop.wait(settings.sweep_s):
        try:
            swept = sweep(database, application)
            if swept.reaped:
                logger.warning("lost their worker: %s", ", ".join(swept.reaped))
            if time.monotonic() - tidied_at >= settings.tidy_s:
                tidy(database, blobs, settings)
                tidied_at = time.monotonic()
        except (DBAPIError, OperationalError, RedisError, BlobsUnavailable, OSError) as error:
            logger.warning("this sweep failed, the next one may not: %s", error)


def tidy(database: Database, blobs: BlobStore, settings: WorkerSettings) -> None:
    """Forget and delete what nobody needs any more."""
    blobs.remove_abandoned()
    remove_checkpoints(database, blobs)
    remove_uploads(database, blobs)
    policy = Policy(
        jobs=settings.keep_jobs_days,
        artifacts=settings.keep_artifacts_days,
        events=settings.keep_events_days,
        deliveries=settings.keep_deliveries_days,
        hook_events=settings.keep_hook_events_days,
    )
    with database.session() as session:
        forgotten = retention.forget(session, policy)
    if forgotten:
        logger.info("forgotten: %s", ", ".join(f"{count} {kind}" for kind, count in forgotten.items()))
    garbage.collect(database, blobs, settings.garbage_s)


def remove_checkpoints(database: Database, blobs: BlobStore, retention_s: float = _CHECKPOINT_RETENTION_S) -> list[str]:
    """Delete checkpoints that no attempt will go on from; the ids of their jobs.

    Of jobs that succeeded, that are gone, or that ended `retention_s` seconds ago; also what a killed worker left.
    """
    stored = [found.split("/")[1] for found in blobs.scopes(SCOPES)][:_SCOPES_AT_ONCE]
    if not stored:
        return []
    with database.session() as session:
        checkpoints = CheckpointRepository(session)
        over = sorted(set(stored) - checkpoints.needed(stored, retention_s))
        for job_id in over:
            checkpoints.forget(job_id)
    for job_id in over:
        blobs.delete_scope(scope(job_id))
    return over


def remove_uploads(database: Database, blobs: BlobStore) -> list[str]:
    """Forget uploads whose time is over, and delete the pieces that nobody needs any more; the ids of the uploads."""
    with database.session() as session:
        uploads.delete_expired(session)
    stored = [found.split("/")[1] for found in blobs.scopes(uploads.SCOPES)][:_SCOPES_AT_ONCE]
    if not stored:
        return []
    with database.session(read_only=True) as session:
        over = sorted(set(stored) - uploads.unfinished(session, stored))
    for upload_id in over:
        blobs.delete_scope(uploads.scope(upload_id))
    return over


def _waiting(application: Celery, queue: str) -> int:
    """Messages that no worker has taken yet."""
    with Redis.from_url(application.conf.broker_url) as broker:
        return int(broker.llen(queue))


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = WorkerSettings()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Presence(settings.redis_url, "sweeper", "cpu", f"{socket.gethostname()}/{os.getpid()}").start()
    run(Database(settings.database_url), celery_app, BlobStore.from_settings(settings), settings, stop)


if __name__ == "__main__":
    main()
