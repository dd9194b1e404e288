"""What tus 1.0 asks of every request and answer under /v1/uploads: its version, and methods behind other methods."""

from http import HTTPStatus
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ApiError

PATH = "/v1/uploads"
VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
BYTES = "application/offset+octet-stream"
OVERRIDABLE = ("PATCH", "DELETE")

VERSION_PARAMETER: dict[str, Any] = {
    "name": "Tus-Resumable",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "enum": [VERSION]},
    "description": "The version of the tus protocol.",
}


class UnsupportedTusVersion(ApiError):
    """The request names no version of the tus protocol that this service speaks."""

    status = HTTPStatus.PRECONDITION_FAILED
    code = "unsupported_tus_version"
    hint = f"Send the header `Tus-Resumable: {VERSION}`, or use a tus client."


async def require_version(request: Request) -> None:
    """Raises UnsupportedTusVersion."""
    if request.headers.get("Tus-Resumable") != VERSION:
        raise UnsupportedTusVersion(
            f"Tus-Resumable is {request.headers.get('Tus-Resumable', 'missing')}; this service speaks {VERSION}.",
            headers={"Tus-Version": VERSION},
        )


class TusManners:
    """Names the version in every answer, and obeys X-HTTP-Method-Override, for clients that cannot send PATCH."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self.app(scope, receive, send)
            return
        meant = Headers(scope=scope).get("X-HTTP-Method-Override", "").upper()
        if scope["method"] == "POST" and meant in OVERRIDABLE:
            scope = {**scope, "method": meant}

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        await self.app(scope, receive, send_with_version)
