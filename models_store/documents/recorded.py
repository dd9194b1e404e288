"""What was asked of a job, as its report keeps it: a report outlives the version that made it, and is to be read by
versions with more rules about what may be asked."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from pydantic import ValidatorFunctionWrapHandler, WrapValidator

_recorded: ContextVar[bool] = ContextVar("recorded", default=False)


def is_recorded() -> bool:
    """Whether the document being validated is the record of a job: it need not keep rules about what has no effect."""
    return _recorded.get()


def _as_record(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401
    token = _recorded.set(True)
    try:
        return validate(value)
    finally:
        _recorded.reset(token)


RECORDED = WrapValidator(_as_record)
"""Of the field of a report that holds the job's spec."""
