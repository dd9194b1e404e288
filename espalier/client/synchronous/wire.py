# Made by `make client` from espalier/client/asynchronous/wire.py: change that file, not this one.
"""Requests, answers and retries."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel

from espalier.client import exchange
from espalier.client.synchronous.flow import sleep
from espalier.errors import EspalierError
from espalier.resources import Listing, Row

PAGE = 100

Answer = TypeVar("Answer", bound=BaseModel)


class Wire:
    """One service's address, a key if it asks for one, and the connections to it."""

    def __init__(self, url: str, api_key: str | None, transport: httpx.BaseTransport | None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers=exchange.authorization(api_key),
            timeout=exchange.ANSWER_TIMEOUT,
            transport=transport,
        )
        self.request = self._http.build_request

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, kind: type[Answer]) -> Answer:
        return self.ask(self.request("GET", path, headers={"Accept": "application/json"}), kind)

    def read(self, path: str) -> bytes:
        return (self.send(self.request("GET", path))).content

    def ask(self, request: httpx.Request, kind: type[Answer]) -> Answer:
        return kind.model_validate_json((self.send(request)).content)

    def pages(self, path: str, kind: type[Row]) -> Iterator[Row]:
        """All rows of a list, fetched a page at a time."""
        after: str | None = None
        while True:
            query = f"{path}?limit={PAGE}" + (f"&after={after}" if after else "")
            page = self.get(query, Listing[kind])  # type: ignore[valid-type]
            for row in page.items:
                yield row
            after = page.next
            if after is None:
                return

    def send(self, request: httpx.Request) -> httpx.Response:
        """The whole answer; asked for again a few times where that can do no harm and may help."""
        failures = 0
        while True:
            try:
                with self.answer(request) as response:
                    response.read()
                    return response
            except EspalierError as error:
                failures += 1
                pause = exchange.pause_before_repeating(request, error, failures)
                if pause is None:
                    raise
            sleep(pause)

    @contextmanager
    def answer(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """The response, its body yet to be read. Errors of any kind come out as this package's exceptions."""
        try:
            response = self._http.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                    raise exchange.refusal(response)
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            raise exchange.unreachable(self.url, error) from error
