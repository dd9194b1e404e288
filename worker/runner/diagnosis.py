"""From an exception to whose fault it is, what to do, and whether to try again."""

from __future__ import annotations

import errno
import os

from models_store.documents.event import ErrorClass, JobError
from worker.engine.errors import EngineError
from worker.order import Failure

_OUT_OF_MEMORY_WORDS = (
    "bad_alloc",
    "Cannot allocate memory",
    "Failed to allocate memory",
    "failed to map segment",  # of a library that is being loaded
    "not enough memory",
    "out of memory",
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BrokenPromise(Exception):
    """The engine broke one of its own promises, such as the proof of a surgery: a fault of ours, never the user's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Told(Exception):
    """Another process of this job has found out why the attempt fails."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error.message)
        self.failure = failure


def diagnose(error: Exception, stage: str | None) -> Failure:
    """The error as the job's owner will read it. Out of memory and a full disk may pass; the rest would come again."""
    if isinstance(error, Told):
        told = error.failure
        return told.model_copy(update={"error": told.error.model_copy(update={"stage": stage})})
    if is_out_of_memory(error):
        return _failure(
            stage,
            "out_of_memory",
            ErrorClass.RESOURCES,
            "The job needed more memory than it may have.",
            "Ask for smaller batches, or run the job on a worker with more memory.",
            retry=True,
        )
    if (number := _full_disk(error)) is not None:
        message = f"The worker's disk is full or the job wrote too much: {os.strerror(number)}."
        return _failure(
            stage, "disk_full", ErrorClass.INFRASTRUCTURE, message, "Free disk space on the worker.", retry=True
        )
    # After memory and disk: where these run out, the engine may have seen no more than that something fails.
    if isinstance(error, EngineError):
        return _failure(stage, error.code, ErrorClass.USER, _at_node(error), error.hint)
    if isinstance(error, BrokenPromise):
        hint = "Please report it, with the model if you can: the original stays untouched."
        return _failure(stage, error.code, ErrorClass.INFRASTRUCTURE, str(error), hint)
    hint = "Look at the worker's log for the traceback, and please report it."
    return _failure(stage, "internal_error", ErrorClass.INFRASTRUCTURE, f"{type(error).__name__}: {error}", hint)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, ONNX Runtime or torch ran out of memory, or an error caused by that was raised."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # ONNX Runtime's errors have no base of their own. Ours quote what stands in the model.
    ours = isinstance(error, EngineError | BrokenPromise)
    if not ours and any(words in str(error) for words in _OUT_OF_MEMORY_WORDS):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def _full_disk(error: BaseException) -> int | None:
    """The number under which the system says that there is no room, if that is what this error is or was caused by."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return error.errno
    return None if error.__cause__ is None else _full_disk(error.__cause__)


def _at_node(error: EngineError) -> str:
    return error.message if error.node is None else f"{error.message} (at {error.node!r})"


def _failure(
    stage: str | None, code: str, error_class: ErrorClass, message: str, hint: str, *, retry: bool = False
) -> Failure:
    error = JobError(code=code, error_class=error_class, message=message[:4000], hint=hint, stage=stage)
    return Failure(error=error, retry=retry)
