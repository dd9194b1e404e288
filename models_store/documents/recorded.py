"""What was asked of a job, as its report and its row keep it: both outlive the version that accepted the job, and are
to be read by versions with more rules about what may be asked."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from pydantic import BaseModel, ValidatorFunctionWrapHandler, WrapValidator

_recorded: ContextVar[bool] = ContextVar("recorded", default=False)


def is_recorded() -> bool:
    """Whether the document being validated is the record of a job: it need not keep rules about what has no effect."""
    return _recorded.get()


def asked_for(document: BaseModel, field: str) -> bool:
    """Whether a document sets a field to anything but its default; of a record it does not matter."""
    return not is_recorded() and bool(getattr(document, field) != type(document).model_fields[field].default)


def _as_record(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401
    token = _recorded.set(True)
    try:
        return validate(value)
    finally:
        _recorded.reset(token)


RECORDED = WrapValidator(_as_record)
"""Of what holds the spec of a job that was accepted."""
