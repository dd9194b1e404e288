"""What the database and the broker say when they are asked; every replica of the API says the same."""

import threading
import time
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis import RedisError
from sqlalchemy.exc import DBAPIError

from app.plane import Plane
from models_store import census
from models_store.census import Census

FRESH_S = 5.0  # scrapes by several servers cost one look


class StateMetrics(Collector):
    """Gauges that are looked up at a scrape, and left out where what knows them is away."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._lock = threading.Lock()
        self._seen: tuple[float, Census] | None = None

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # so that registering asks nobody

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("espalier_up", "Whether what the service needs answers.", labels=("part",))
        try:
            yield from _counted(self._census())
            up.add_metric(("database",), 1)
        except DBAPIError:
            up.add_metric(("database",), 0)
        try:
            workers = GaugeMetricFamily("espalier_parts", "Living processes.", labels=("part", "device"))
            for labels, count in self._plane.doorbell.present().items():
                workers.add_metric(labels, count)
            yield workers
            up.add_metric(("broker",), 1)
        except RedisError:
            up.add_metric(("broker",), 0)
        yield up

    def _census(self) -> Census:
        with self._lock:
            now = time.monotonic()
            if self._seen is None or now - self._seen[0] > FRESH_S:
                with self._plane.database.session(read_only=True) as session:
                    self._seen = now, census.take(session)
            return self._seen[1]


def _counted(taken: Census) -> Iterator[GaugeMetricFamily]:
    jobs = GaugeMetricFamily("espalier_jobs", "Jobs by state and kind.", labels=("state", "kind"))
    for labels, count in taken.jobs.items():
        jobs.add_metric(labels, count)
    yield jobs
    for name, what, waiting in (
        ("queue", "jobs that a worker could begin", taken.queue),
        ("deliveries_pending", "webhook deliveries that are still to be made", taken.deliveries),
    ):
        yield GaugeMetricFamily(f"espalier_{name}", f"How many {what}.", value=waiting.count)
        yield GaugeMetricFamily(
            f"espalier_{name}_oldest_seconds", f"How long the first of the {what} has waited.", value=waiting.oldest_s
        )
