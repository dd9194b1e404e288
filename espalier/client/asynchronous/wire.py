"""Requests, answers and retries."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel

from espalier.client import exchange
from espalier.client.asynchronous.flow import sleep
from espalier.errors import EspalierError
from espalier.resources import Listing, Row

PAGE = 100

Answer = TypeVar("Answer", bound=BaseModel)
Filter = str | bool | datetime | None
"""Of a list; None: all of it."""


class Wire:
    """One service's address, a key if it asks for one, and the connections to it."""

    def __init__(self, url: str, api_key: str | None, transport: httpx.AsyncBaseTransport | None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=exchange.authorization(api_key),
            timeout=exchange.ANSWER_TIMEOUT,
            transport=transport,
        )
        self.request = self._http.build_request

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, kind: type[Answer]) -> Answer:
        return await self.ask(self.request("GET", path, headers={"Accept": "application/json"}), kind)

    async def read(self, path: str, although: Sequence[int] = ()) -> bytes:
        """The bytes of an answer; `although`: statuses of errors that are answers, too."""
        return (await self.send(self.request("GET", path), although)).content

    async def ask(self, request: httpx.Request, kind: type[Answer]) -> Answer:
        return kind.model_validate_json((await self.send(request)).content)

    async def pages(self, path: str, kind: type[Row], /, **filters: Filter) -> AsyncIterator[Row]:
        """All rows of a list that the filters let through, fetched a page at a time."""
        query = {name: _spelt(value) for name, value in filters.items() if value is not None} | {"limit": str(PAGE)}
        after: str | None = None
        while True:
            request = self.request("GET", path, params=query | ({"after": after} if after else {}))
            page = await self.ask(request, Listing[kind])  # type: ignore[valid-type]
            for row in page.items:
                yield row
            after = page.next
            if after is None:
                return

    async def send(self, request: httpx.Request, although: Sequence[int] = ()) -> httpx.Response:
        """The whole answer; asked for again a few times where that can do no harm and may help."""
        failures = 0
        while True:
            try:
                async with self.answer(request, although) as response:
                    await response.aread()
                    return response
            except EspalierError as error:
                failures += 1
                pause = exchange.pause_before_repeating(request, error, failures)
                if pause is None:
                    raise
            await sleep(pause)

    @asynccontextmanager
    async def answer(self, request: httpx.Request, although: Sequence[int] = ()) -> AsyncIterator[httpx.Response]:
        """The response, its body yet to be read. Errors of any kind come out as this package's exceptions."""
        try:
            response = await self._http.send(request, stream=True)
            try:
                if response.is_error and response.status_code not in although:
                    await response.aread()
                    raise exchange.refusal(response)
                yield response
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            raise exchange.unreachable(self.url, error) from error


def _spelt(value: str | bool | datetime) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else value
