"""What torch raises where a network does not fit its inputs: it has no type of its own for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from worker.engine.errors import EngineError

TORCH_ERRORS = (RuntimeError, TypeError, ValueError, IndexError)


@contextmanager
def as_engine_error(code: str, what: str, hint: str) -> Iterator[None]:
    """In this block torch's errors become an EngineError that says what failed, and why."""
    try:
        yield
    except TORCH_ERRORS as error:
        raise EngineError(code, f"{what}: {error}.", hint) from error
