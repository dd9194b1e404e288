"""Lists, a page at a time: the cursor is the last id of the page before, so rows that come or go shift nothing."""

from collections.abc import Sequence
from typing import Annotated, Generic, Self, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field


class Listed(BaseModel):
    """What a list may hold."""

    id: str


Item = TypeVar("Item", bound=Listed)

MAX_PAGE = 200

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most items on the page.")]
After = Annotated[
    str | None,
    Query(pattern=r"^[a-z]{3}_[0-9a-f]{32}$", description="`next` of the page before; left out for the first page."),
]


class Page(BaseModel, Generic[Item]):
    """Newest first."""

    items: list[Item]
    next: str | None = Field(description="Give it as `after` to get the next page; null on the last one.")

    @classmethod
    def of(cls, items: Sequence[Item], limit: int) -> Self:
        """A page of the first `limit` items; one item more than that says that there is a next page."""
        shown = list(items[:limit])
        return cls(items=shown, next=shown[-1].id if len(items) > limit else None)
