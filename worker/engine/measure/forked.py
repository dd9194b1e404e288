"""A fork of this process for one piece of work in ONNX Runtime: what it leaves in memory, or dies of, stays there.

A fork and not a new program, because a confined job may start none.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def in_fork(work: Callable[[], str], seconds: int) -> str | None:
    """What `work` returned there; None where it raised, took more than `seconds`, or the process died. Linux only.

    It may use no thread of this process, and so neither torch's nor a session's that was made here.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings(), _no_collection():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of this process: none is used there
        child = os.fork()
        if child == 0:
            os.close(reading)
            _do(work, seconds, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read()
    _, status = os.waitpid(child, 0)
    return said.decode() if status == 0 else None


@contextmanager
def _no_collection() -> Iterator[None]:
    """A session that is garbage waits for its threads at its end, and a fork has none of them: it would wait for ever,
    were it collected there, be it in what Python does itself after a fork."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _do(work: Callable[[], str], seconds: int, writing: int) -> NoReturn:
    """In the forked process: say what was found and end, whatever happens."""
    code = 1
    with suppress(BaseException):
        for caught in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(caught, signal.SIG_DFL)
        signal.alarm(seconds)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nothing is done for a job that has ended
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(work().encode())
        code = 0
    os._exit(code)
