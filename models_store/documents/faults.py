"""What is wrong with a document, in words for the one who wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_OUR_OWN = "Value error, "
"""What pydantic puts in front of the sentences of our own validators."""


def sentence(fault: Mapping[str, Any]) -> str:
    """The message of one of a ValidationError's errors."""
    return str(fault["msg"]).removeprefix(_OUR_OWN)


def sentences(faults: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each with its place in the document; what concerns the whole of it has none."""
    return [": ".join(filter(None, (".".join(map(str, fault["loc"])), sentence(fault)))) for fault in faults]
