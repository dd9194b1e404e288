"""Spans of time that a list is restricted to."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute


@dataclass(frozen=True)
class Span:
    """From `start` up to, not including, `end`; None: without a bound."""

    start: datetime | None = None
    end: datetime | None = None

    def holds(self, column: InstrumentedAttribute[datetime]) -> list[ColumnElement[bool]]:
        """The conditions that `column` lies within the span."""
        conditions = []
        if self.start is not None:
            conditions.append(column >= self.start)
        if self.end is not None:
            conditions.append(column < self.end)
        return conditions


ALWAYS = Span()
