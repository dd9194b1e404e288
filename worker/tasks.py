"""The one Celery task: answer the door by running jobs until none is left."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from contextlib import suppress
from functools import cache

from celery.signals import worker_ready, worker_shutting_down
from kombu.exceptions import OperationalError
from redis import RedisError
from sqlalchemy.exc import DBAPIError

from models_store.blobs import BlobStore
from models_store.database import Database
from models_store.jobs import Claim, JobRepository
from models_store.presence import Presence
from models_store.webhooks import WebhookRepository
from worker import supervisor
from worker.celery_app import DELIVER, MAX_RINGS, RING, celery_app
from worker.settings import WorkerSettings
from worker.work_folder import remove_leftovers

logger = logging.getLogger(__name__)

# Set once, at SIGTERM: running jobs go back to the queue, no new one is claimed.
_draining = threading.Event()
# Unique to this process, so that a claim outlives no restart.
_worker = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"


@celery_app.task(name=RING)
def ring() -> None:
    """Claim and run jobs until none is left, or until this worker is told to stop."""
    remove_leftovers(_settings().work_folder)  # of a neighbour that was killed and that nobody started again
    while not _draining.is_set() and (claim := _claim_if_possible()) is not None:
        logger.info("%s: attempt %s of a job of kind %s", claim.job_id, claim.attempt, claim.kind)
        outcome = supervisor.run(claim, _database(), _blobs(), _settings(), _draining)
        logger.info("%s: attempt %s %s", claim.job_id, claim.attempt, outcome.name.lower())
        if outcome is supervisor.Outcome.RELEASED:
            _ring_again()
        if outcome is supervisor.Outcome.SPREAD:
            _ring_for_all()
        _tell_courier()


@worker_shutting_down.connect
def drain(**_: object) -> None:
    """SIGTERM or SIGINT: give running jobs back."""
    _draining.set()
    _presence().close()


@worker_ready.connect
def start(**_: object) -> None:
    """Clear up after a predecessor that was killed, and look for work that nobody rang for."""
    _presence().start()
    remove_leftovers(_settings().work_folder)
    _ring_again()


def _ring_again() -> None:
    """Where the broker is away, the sweeper rings once it is back."""
    with suppress(OperationalError, RedisError, OSError):
        ring.delay()


def _ring_for_all() -> None:
    """For every queued job; where that is not heard, the sweeper sees to it."""
    with suppress(DBAPIError, OperationalError, RedisError, OSError):
        with _database().session(read_only=True) as session:
            queued = JobRepository(session).queued_count()
        for _ in range(min(queued, MAX_RINGS)):
            ring.delay()


def _claim_if_possible() -> Claim | None:
    """None while the database is away, too: the sweeper rings when it is back."""
    try:
        return _claim()
    except DBAPIError as error:
        logger.warning("nothing can be claimed, the database is away: %s", error.orig)
        return None


def _claim() -> Claim | None:
    with _database().session() as session:
        return JobRepository(session).claim(_worker, _settings().lease_s)


def _tell_courier() -> None:
    """Have news sent at once; where the database or the broker is away, the sweeper sees to it."""
    with suppress(DBAPIError, OperationalError, RedisError, OSError):
        with _database().session(read_only=True) as session:
            news = WebhookRepository(session).any_due()
        if news:
            celery_app.send_task(DELIVER)


@cache
def _settings() -> WorkerSettings:
    return WorkerSettings()


@cache
def _presence() -> Presence:
    return Presence(_settings().redis_url, "worker", _settings().device, _worker)


@cache
def _database() -> Database:
    return Database(_settings().database_url)


@cache
def _blobs() -> BlobStore:
    return BlobStore.from_settings(_settings())
