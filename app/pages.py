"""Lists, a page at a time: the cursor is the last id of the page before, so rows that come or go shift nothing."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Generic, Self, TypeVar

from fastapi import Depends, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field

from models_store.spans import Span


class Listed(BaseModel):
    """What a list may hold."""

    id: str


Item = TypeVar("Item", bound=Listed)

MAX_PAGE = 200
RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most items on the page.")]
After = Annotated[
    str | None,
    Query(pattern=r"^[a-z]{3}_[0-9a-f]{32}$", description="`next` of the page before; left out for the first page."),
]

Filter = Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")]


def _rfc_3339(value: object) -> object:
    """Written as RFC 3339 has it: pydantic would also take numbers for seconds since 1970."""
    if isinstance(value, str) and not RFC_3339.match(value):
        raise ValueError("write it as 2026-11-23T08:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    """Refused where no year from 1 to 9999 holds it there."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("this moment lies outside the years 1 to 9999 in UTC") from error


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_in_utc)]


async def _span(
    created_from: Annotated[Moment | None, Query(description="Created then or later.")] = None,
    created_before: Annotated[Moment | None, Query(description="Created earlier than that.")] = None,
) -> Span:
    return Span(created_from, created_before)


SpanDep = Annotated[Span, Depends(_span)]


class Page(BaseModel, Generic[Item]):
    """Newest first."""

    items: list[Item]
    next: str | None = Field(description="Give it as `after` to get the next page; null on the last one.")

    @classmethod
    def of(cls, items: Sequence[Item], limit: int) -> Self:
        """A page of the first `limit` items; one item more than that says that there is a next page."""
        shown = list(items[:limit])
        return cls(items=shown, next=shown[-1].id if len(items) > limit else None)
