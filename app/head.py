"""HEAD wherever there is GET (RFC 9110, section 9.1): the same headers, and no body.

The server leaves the body out; whoever would send a long or an endless one asks `asked_for` first.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.tus.protocol import PATH as UPLOADS

ASKED = "espalier.head"


def asked_for(request: Request) -> bool:
    """Whether only the headers are wanted."""
    return bool(request.scope.get(ASKED))


class HeadAsGet:
    """Routes HEAD as GET; but for uploads, where tus gives it a meaning of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD" and not scope["path"].startswith(UPLOADS):
            scope = {**scope, "method": "GET", ASKED: True}  # a copy: the server's own still says HEAD
        await self.app(scope, receive, send)
