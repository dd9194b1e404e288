"""What commands have in common."""

from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console

Url = Annotated[str, typer.Option("--url", envvar="ESPALIER_URL", help="Where the service is.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

# Lines are for copying and for other programs: they are not wrapped.
out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def show(thing: BaseModel, as_json: bool, line: str) -> None:
    """A thing in one line, or as JSON."""
    if as_json:
        print(thing.model_dump_json(indent=2))
    else:
        out.print(line)
