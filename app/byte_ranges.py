"""The Range header of one byte range (RFC 9110, section 14)."""

import re
from http import HTTPStatus

from app.errors import ApiError

ONE_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,40})\s*-\s*([0-9]{0,40})", re.IGNORECASE)


class RangeNotSatisfiable(ApiError):
    """The requested bytes lie beyond the end of the file."""

    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    code = "range_not_satisfiable"
    hint = "Ask for less: Content-Range says how many bytes there are. Without a Range header all of them are sent."


def parse(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """The bytes from start up to, not including, end; None where the whole file is to be sent.

    What is no single byte range is ignored, as the standard wants. Raises RangeNotSatisfiable.
    """
    match = ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":  # the last so many bytes
        start, end = max(0, size_bytes - int(last)), size_bytes
    else:
        start, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < int(first):
            return None
    if start >= end:
        raise RangeNotSatisfiable(
            f"The file has {size_bytes:,} bytes.", headers={"Content-Range": f"bytes */{size_bytes}"}
        )
    return start, end
