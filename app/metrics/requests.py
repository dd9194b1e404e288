"""Requests by route: how many, how they ended, and how long their answers took to begin.

Counted in this process: a Prometheus server asks every replica of the API by itself and adds them up.
"""

import time
from http import HTTPMethod

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
UNROUTED = "(none)"
METHODS = frozenset(HTTPMethod)  # a label keeps memory for good, and anybody may send any word
OTHER = "other"
UNFORESEEN = 500


class RequestMetrics:
    """Middleware, next to the routes; `registry` takes what it counts."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        labels = ("method", "route")
        self._requests = Counter(
            "espalier_requests", "Requests by route and status.", (*labels, "status"), registry=registry
        )
        self._seconds = Histogram(
            "espalier_request_seconds",
            "From the request to the first byte of its answer.",
            labels,
            buckets=BUCKETS_S,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status: int | None = None

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._note(scope, status, time.perf_counter() - began)
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            if status is None:
                self._note(scope, UNFORESEEN, time.perf_counter() - began)
            raise

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Under the route's pattern and not the path, of which there are as many as ids."""
        route = getattr(scope.get("route"), "path", UNROUTED)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
