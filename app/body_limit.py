"""A bound on JSON bodies, which are read whole; uploads have one of their own, counted as they stream."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message

MAX_BODY_BYTES = 2**20


class BoundedRoute(APIRoute):
    """`route_class=` of a router whose endpoints take JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            received_bytes = 0

            async def receive() -> Message:
                nonlocal received_bytes
                message = await request.receive()
                received_bytes += len(message.get("body", b""))
                if received_bytes > MAX_BODY_BYTES:
                    raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY_BYTES:,} bytes")
                return message

            return await handle(Request(request.scope, receive))

        return handle_bounded
