"""Waiting for what another thread or process will do."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def until(condition: Callable[[], Found | None], timeout_s: float = 60, what: str | Callable[[], str] = "it") -> Found:
    """The first true value of the condition; AssertionError when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what() if callable(what) else what}"
        time.sleep(0.02)
