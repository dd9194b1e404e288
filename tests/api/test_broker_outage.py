"""The doorbell: rung after the commit, and harmless and quick where the broker is down or hangs."""

import base64
import json
import socket
import time
from pathlib import Path

import pytest
from redis import Redis

from tests.api.answers import problem
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes
from tests.redis_server import RedisServer, free_port
from tests.waiting import until
from worker.celery_app import RING, celery_app

QUEUE = celery_app.conf.task_default_queue


def rings(redis: Redis) -> list[dict]:
    return [json.loads(message) for message in redis.lrange(QUEUE, 0, -1)]


@pytest.fixture
def broker(tmp_path: Path):
    with RedisServer(tmp_path) as server:
        yield server


def test_every_queued_job_rings_once_as_the_worker_expects_it(database_url: str, serve: Serve, broker) -> None:
    with serve(database_url, redis_url=broker.url) as service:
        service.start_job()  # one ring for the model's inspection, one for the job
        until(lambda: len(rings(broker.client)) == 2)
        for ring in rings(broker.client):
            assert ring["headers"]["task"] == RING
            assert ring["content-type"] == "application/json"
            arguments, keywords, _ = json.loads(base64.b64decode(ring["body"]))
            assert (arguments, keywords) == ([], {})
        problem(service.http.post("/v1/models", files={"file": b""}), 422, "empty_file")
        problem(service.http.post("/v1/jobs", json={}), 422, "invalid_request")
    assert len(rings(broker.client)) == 2  # the service has stopped: nothing was still to be sent


def test_a_broker_that_is_down_delays_nothing_and_loses_only_the_ring(sqlite_url: str, serve: Serve) -> None:
    with serve(sqlite_url, redis_url=f"redis://127.0.0.1:{free_port()}/0") as service:
        assert timed_upload(service) < 1
        assert service.worker.claim().kind == "inspect"


def test_a_broker_that_hangs_delays_nothing(sqlite_url: str, serve: Serve) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serve(sqlite_url, redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0") as service,
    ):
        assert timed_upload(service) < 1
        body = service.http.get("/readyz")
    assert body.status_code == 503


def test_rings_arrive_again_once_the_broker_is_back(sqlite_url: str, serve: Serve, tmp_path: Path) -> None:
    port = free_port()
    with serve(sqlite_url, redis_url=f"redis://127.0.0.1:{port}/0") as service:
        for _ in range(2):  # the second broker meets a doorbell whose connection has died
            with RedisServer(tmp_path, port) as broker:
                service.upload_model()
                until(lambda redis=broker.client: rings(redis) != [])
            service.upload_model()  # while nobody is there


def timed_upload(service: Service) -> float:
    """Seconds that an upload takes when everything has been loaded."""
    service.upload_model()
    began = time.monotonic()
    service.http.put("/v1/models/net", content=onnx_bytes()).raise_for_status()
    return time.monotonic() - began
