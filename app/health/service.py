"""Looks at everything the plane needs, all at once, and gives up on what hangs."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

from redis import RedisError

from app.health.schemas import Check, Readiness
from app.plane import Plane
from models_store.errors import StoreError

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0


async def readiness(plane: Plane) -> Readiness:
    """The state of database (reachable, tables up to date), blob store (listable, writable) and broker."""
    checks = await asyncio.gather(
        _run("database", plane.database.check),
        _run("blobs", plane.blobs.check),
        _run("broker", plane.doorbell.check),
    )
    return Readiness(
        status="ready" if all(check.ok for check in checks) else "unavailable",
        auth="required" if plane.settings.keyed else "off",
        checks=list(checks),
    )


async def _run(name: Literal["database", "blobs", "broker"], check: Callable[[], None]) -> Check:
    began = time.perf_counter()
    message = ""
    try:
        await asyncio.wait_for(asyncio.to_thread(check), TIMEOUT_S)
    except TimeoutError:
        message = f"no answer within {TIMEOUT_S:g} s"
    except (StoreError, RedisError) as error:
        log.warning("%s: %s", name, error)
        message = type(error).__name__  # the log has the rest: addresses are no stranger's business
    took_ms = (time.perf_counter() - began) * 1000
    return Check(name=name, ok=not message, message=message, took_ms=round(took_ms, 1))
