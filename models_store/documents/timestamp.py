"""Moments as answers and documents write them."""

from datetime import datetime
from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema


def _of_one_width(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


Timestamp = Annotated[
    datetime,
    PlainSerializer(_of_one_width, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""All digits of the fraction, always: left out where it is zero, text would no longer sort like time."""
