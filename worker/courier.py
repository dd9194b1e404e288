"""`python -m worker.courier`: a Celery worker of its own for everything that goes out to strangers.

Its queue is not the jobs' queue, so a receiver that is slow or down holds no job up, and no long job holds news up.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import threading
from functools import cache

from celery.signals import worker_ready, worker_shutting_down

from models_store.database import Database
from models_store.presence import Presence
from models_store.targets import Rules
from worker.celery_app import DELIVER, DELIVERIES, make_celery
from worker.deliveries import deliver_all
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

_stopping = threading.Event()

courier_app = make_celery(WorkerSettings().redis_url, include=())


@courier_app.task(name=DELIVER)
def deliver() -> None:
    """Attempt what is due, until nothing is or the courier is told to stop."""
    attempted = deliver_all(_database(), _rules(), _stopping)
    if attempted:
        logger.info("%s deliveries attempted", attempted)


@worker_shutting_down.connect
def stop(**_: object) -> None:
    _stopping.set()
    _presence().close()


@worker_ready.connect
def start(**_: object) -> None:
    """Look for what became due while nobody was there."""
    _presence().start()
    deliver.delay()


@cache
def _presence() -> Presence:
    return Presence(WorkerSettings().redis_url, "courier", "cpu", f"{socket.gethostname()}/{os.getpid()}")


@cache
def _database() -> Database:
    return Database(WorkerSettings().database_url)


@cache
def _rules() -> Rules:
    settings = WorkerSettings()
    return Rules(http=settings.webhook_http, private_networks=settings.webhook_private_networks)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m worker.courier", description=__doc__)
    parser.add_argument("--concurrency", type=int, default=4, help="deliveries at once (default 4)")
    concurrency = str(parser.parse_args().concurrency)
    pool = ["--pool", "threads", "--concurrency", concurrency, "--queues", DELIVERIES]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    courier_app.worker_main(["worker", "--hostname", "courier-%n@%h", *pool, *quiet])


if __name__ == "__main__":
    main()
