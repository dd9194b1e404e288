"""Lists and single things of the service on the command line: a line for each row, a line for each field."""

import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel

Row = TypeVar("Row", bound=BaseModel)

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def moment(text: str) -> datetime:
    """A time as people write it: of this machine's zone unless it says otherwise. Raises BadParameter."""
    try:
        said = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("write it as 2026-11-23, 2026-11-23T08:00 or 2026-11-23T08:00:00Z") from error
    return said if said.tzinfo else said.astimezone()


Since = Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Created then or later.")]
Before = Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Created earlier than that.")]
Most = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows; all of them without this.")]


def rows(found: Iterable[Row], as_json: bool, line: Callable[[Row], str], most: int | None = None) -> None:
    """Print each row as it arrives: as one line, or as one JSON document in a line."""
    for row in islice(found, most):
        print(row.model_dump_json() if as_json else visible(line(row)))


def fields(thing: BaseModel, as_json: bool) -> None:
    """Print a thing whole: `name: value` lines, what has parts of its own as JSON; or one JSON document."""
    if as_json:
        print(thing.model_dump_json(indent=2))
        return
    for name, value in thing.model_dump(mode="json").items():
        if value is not None:
            print(f"{name}: {visible(_text(value))}")


def removed(id: str, as_json: bool) -> None:
    """Say that it is gone, to programs: people see that nothing went wrong."""
    if as_json:
        print(json.dumps({"removed": id}))


def visible(text: str) -> str:
    """Without what would steer the terminal: names in it were chosen by others."""
    return CONTROL.sub(lambda control: control[0].encode("unicode_escape").decode(), text)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
