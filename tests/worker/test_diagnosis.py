"""From exceptions to errors that a job's owner can act on."""

import errno

import pytest

from models_store.documents.event import ErrorClass
from worker.engine.errors import EngineError
from worker.runner.diagnosis import BrokenPromise, diagnose


def _caused_by(cause: Exception, error: Exception | None = None) -> Exception:
    error = error or ValueError("something else")
    error.__cause__ = cause
    return error


def _blamed_on_the_model(cause: Exception) -> Exception:
    return _caused_by(cause, EngineError("not_runnable", f"The model does not run: {cause}.", "Change it."))


@pytest.mark.parametrize(
    ("error", "code", "error_class", "retry"),
    [
        (EngineError("bad", "It is bad.", "Do this.", "conv1"), "bad", ErrorClass.USER, False),
        (BrokenPromise("proof_failed", "1 is not 2."), "proof_failed", ErrorClass.INFRASTRUCTURE, False),
        (MemoryError(), "out_of_memory", ErrorClass.RESOURCES, True),
        (RuntimeError("std::bad_alloc"), "out_of_memory", ErrorClass.RESOURCES, True),
        (_caused_by(MemoryError()), "out_of_memory", ErrorClass.RESOURCES, True),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", ErrorClass.INFRASTRUCTURE, True),
        (_blamed_on_the_model(MemoryError()), "out_of_memory", ErrorClass.RESOURCES, True),
        (
            _blamed_on_the_model(RuntimeError("Failed to allocate memory for requested buffer of size 9")),
            "out_of_memory",
            ErrorClass.RESOURCES,
            True,
        ),
        (_blamed_on_the_model(OSError(errno.EFBIG, "Too large")), "disk_full", ErrorClass.INFRASTRUCTURE, True),
        (_blamed_on_the_model(_caused_by(OSError(errno.EDQUOT, ""))), "disk_full", ErrorClass.INFRASTRUCTURE, True),
        (_blamed_on_the_model(OSError(errno.ENOENT, "No such file")), "not_runnable", ErrorClass.USER, False),
        (_blamed_on_the_model(ValueError("wrong shape")), "not_runnable", ErrorClass.USER, False),
        (EngineError("bad", "It is bad.", "Do this.", "out of memory"), "bad", ErrorClass.USER, False),
        (EngineError("bad", "No tensor 'out of memory'.", "Do this."), "bad", ErrorClass.USER, False),
        (KeyError("x"), "internal_error", ErrorClass.INFRASTRUCTURE, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_classes(error: Exception, code: str, error_class: ErrorClass, retry: bool) -> None:
    failure = diagnose(error, "prune")
    assert (failure.error.code, failure.error.error_class, failure.retry) == (code, error_class, retry)
    assert failure.error.stage == "prune"
    assert failure.error.message
    assert failure.error.hint


def test_names_the_node() -> None:
    assert "'conv1'" in diagnose(EngineError("bad", "It is bad.", "Do this.", "conv1"), None).error.message
