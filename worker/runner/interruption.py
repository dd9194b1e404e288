"""SIGTERM: the end at once, except where a stage asks for the time to leave a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The attempt was told to stop, and has left what another one can go on from."""


class Spread(Exception):
    """The attempt has left parts of its work to other workers, and what another attempt can go on from."""


class Lost(Exception):
    """Another process of the job has ended, or answers no more; this one does not know why."""


class Interruption:
    """Whether SIGTERM came while it was deferred."""

    def __init__(self) -> None:
        self._told = self._deaf = False

    def told_to_stop(self) -> bool:
        return self._told

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """In this block SIGTERM only makes `told_to_stop` true; who uses it asks often and stops soon."""
        before = signal.signal(signal.SIGTERM, self._tell)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN if self._deaf else before)

    def go_deaf(self) -> None:
        """From the end of the block on SIGTERM does nothing: this process ends by itself, soon."""
        self._deaf = True

    def _tell(self, *_: object) -> None:
        self._told = True
