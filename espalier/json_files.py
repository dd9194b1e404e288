"""JSON objects in the user's files."""

from pathlib import Path
from typing import Any

from pydantic_core import from_json


def read_object(file: Path) -> dict[str, Any]:
    """The object that the file holds. Raises ValueError that says why there is none."""
    try:
        body = from_json(file.read_bytes())
    except OSError as error:
        raise ValueError(str(error)) from error
    except ValueError as error:
        raise ValueError(str(error).replace("recursion limit exceeded", "nested too deeply")) from error
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    return body
