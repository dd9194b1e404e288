"""How many requests one key may send: a window that slides over the last minute, shared by all replicas in Redis.

While Redis does not answer, each process counts for itself: a broker that is down stops nobody.
"""

import logging
import math
import time
from http import HTTPStatus

from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from app.errors import ApiError

log = logging.getLogger(__name__)

REDIS_TIMEOUT_S = 0.5
WITHOUT_REDIS_S = 10.0
"""Before it is asked again, so that a server that hangs does not slow every request down."""


class RateLimited(ApiError):
    """The key has sent too many requests within a minute."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "rate_limited"
    hint = "Wait as long as Retry-After says. To follow a job, read its event stream instead of polling."


class TooManyRefusedKeys(ApiError):
    """Too many keys that are none came from this address within a minute."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "too_many_refused_keys"
    hint = "Check the key, and wait as long as Retry-After says; a valid key is let in meanwhile."


class RateLimiter:
    """Counts requests; `per_minute` of them pass, for each sender. What is too many is refused by `refusal`."""

    def __init__(self, per_minute: int, redis_url: str, refusal: type[ApiError] = RateLimited) -> None:
        self._limit = RateLimitItemPerMinute(per_minute, namespace=refusal.code)
        self._refusal = refusal
        shared = RedisStorage(
            redis_url,
            key_prefix="espalier-rate",
            wrap_exceptions=True,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
        )
        self._shared = SlidingWindowCounterRateLimiter(shared)
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared_from = 0.0

    def count(self, sender: str) -> None:
        """One request of `sender`. Raises the limiter's refusal."""
        if time.monotonic() >= self._shared_from:
            try:
                self._count(self._shared, sender)
                return
            except StorageError as error:
                self._shared_from = time.monotonic() + WITHOUT_REDIS_S
                log.warning("rates are counted in this process only for %g s: %s", WITHOUT_REDIS_S, error)
        self._count(self._own, sender)

    def _count(self, counter: SlidingWindowCounterRateLimiter, sender: str) -> None:
        if counter.hit(self._limit, sender):
            return
        wait_s = max(1, math.ceil(counter.get_window_stats(self._limit, sender).reset_time - time.time()))
        raise self._refusal(
            f"More than {self._limit.amount:,} requests came within a minute.", headers={"Retry-After": str(wait_s)}
        )
