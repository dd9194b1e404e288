"""Names that people give to what they upload."""

import re
from typing import Annotated

from pydantic import Field

MAX_LENGTH = 200
UNSUITABLE = re.compile(r"[\x00-\x1f\x7f/\\]")

Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_LENGTH,
        pattern=r"^[^\x00-\x1f\x7f/\\]+$",
        description="For people; it need not be unique.",
    ),
]


def from_filename(filename: str, default: str) -> str:
    """A name made of an uploaded file's, whatever characters its sender used."""
    base = re.split(r"[/\\]", filename)[-1]
    return UNSUITABLE.sub("", base)[:MAX_LENGTH].strip() or default
