"""Who is at work, told over the broker: each part says now and then that it lives, and is forgotten if it does not.

The broker and not the database, because this is worth nothing a minute later.
"""

import logging
import threading
from collections import Counter

from redis import Redis, RedisError

logger = logging.getLogger(__name__)

PREFIX = "espalier-presence"
EVERY_S = 15.0
FORGOTTEN_S = 3 * EVERY_S


class Presence:
    """Says that one part of the service lives, from a thread of its own, until it is closed."""

    def __init__(self, redis_url: str, part: str, device: str, name: str) -> None:
        self._redis_url = redis_url
        self._key = f"{PREFIX}:{part}:{device}:{name}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while True:
            try:
                with Redis.from_url(self._redis_url, socket_timeout=5, socket_connect_timeout=5) as broker:
                    broker.set(self._key, "", ex=int(FORGOTTEN_S))
                    if self._stop.wait(EVERY_S):
                        broker.delete(self._key)
                        return
            except RedisError as error:
                logger.debug("nobody hears that this part lives: %s", error)
                if self._stop.wait(EVERY_S):
                    return


def present(broker: Redis) -> Counter[tuple[str, str]]:
    """Living parts by what they are and on what device they work. Raises redis.RedisError."""
    found: Counter[tuple[str, str]] = Counter()
    for key in broker.scan_iter(f"{PREFIX}:*", count=1000):
        _, part, device, _name = key.decode().split(":", 3)
        found[part, device] += 1
    return found
