"""Tells the workers that there is something to do: a Celery task, sent by name.

Only a doorbell: the job is its row in the database. A ring that is lost delays a job until the sweeper rings again,
so nothing here may fail or delay a request.
"""

import logging
import threading
from collections import Counter
from queue import Full, Queue

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from models_store import presence

log = logging.getLogger(__name__)

RING = "espalier.ring"
DELIVER = "espalier.deliver"
ROUTES = {DELIVER: {"queue": "deliveries"}}
TIMEOUT_S = 1.0
MAX_WAITING_RINGS = 1000
TRANSPORT_OPTIONS = {
    "socket_timeout": TIMEOUT_S,
    "socket_connect_timeout": TIMEOUT_S,
    "max_retries": 1,
    "interval_start": 0,
}
RETRY_ONCE = {"max_retries": 1, "interval_start": 0}


class Doorbell:
    """Rings from a thread of its own, so that a broker that hangs holds nobody up."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._celery = Celery("espalier-api", broker=redis_url, set_as_current=False)
        self._celery.conf.update(
            broker_transport_options=TRANSPORT_OPTIONS, broker_connection_timeout=TIMEOUT_S, task_routes=ROUTES
        )
        self._waiting: Queue[str | None] = Queue(MAX_WAITING_RINGS)
        self._thread = threading.Thread(target=self._send_rings, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, task: str = RING) -> None:
        """Ask one worker, or courier, to look. Returns at once and raises nothing; call it after the commit."""
        try:
            self._waiting.put_nowait(task)
        except Full:
            log.warning("the broker is too slow: a ring is left to the sweeper")

    def check(self) -> None:
        """Raise redis.RedisError if the broker does not answer."""
        with self._broker() as broker:
            broker.ping()

    def present(self) -> Counter[tuple[str, str]]:
        """Living parts of the service by what they are and on what device they work. Raises redis.RedisError."""
        with self._broker() as broker:
            return presence.present(broker)

    def close(self) -> None:
        """Stop; what waits is left to the sweeper."""
        while not self._waiting.empty():
            self._waiting.get()
        self._waiting.put(None)
        self._thread.join(timeout=5 * TIMEOUT_S)
        self._celery.close()

    def _broker(self) -> Redis:
        return Redis.from_url(self._redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=None)

    def _send_rings(self) -> None:
        while task := self._waiting.get():
            try:
                # Once more at once, because a connection that was good may have died since.
                self._celery.send_task(task, ignore_result=True, retry=True, retry_policy=RETRY_ONCE)
            except (OperationalError, RedisError, OSError) as error:
                log.warning("the doorbell did not ring, the sweeper will: %s", error)
