"""Entity tags: whoever has the current version is not sent it again (RFC 9110, section 13.1.2)."""

import hashlib
import json
import re
from typing import Any

from fastapi import Request, Response

TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
REVALIDATE = {"Cache-Control": "private, no-cache"}


def is_current(request: Request, tag: str) -> bool:
    """Whether If-None-Match names the quoted `tag`, or anything."""
    header = request.headers.get("If-None-Match", "").strip()
    return header == "*" or tag in TAG.findall(header)


def send_json(request: Request, document: dict[str, Any]) -> Response:
    """The document with its tag; 304 and nothing else where the client has it."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {"ETag": tag, **REVALIDATE}
    if is_current(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
