"""/v1/jobs/{id}/events: live, resumable, ending with the job, and never in the way of other requests."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from app.jobs.events import BATCH
from tests.api.answers import problem
from tests.api.running_api import Service


def read_events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-sent events as a browser would see them, comments left out."""
    event: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line == "":
            if "data" in event:
                yield event
            event = {}
            continue
        field, _, value = line.partition(": ")
        event[field] = value


def follow(service: Service, job_id: str, **options: object) -> list[dict[str, str]]:
    """Every event to the stream's end."""
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events", **options) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        return list(read_events(response.iter_lines()))


def messages(events: list[dict[str, str]]) -> list[str]:
    return [json.loads(event["data"])["data"]["message"] for event in events if event["event"] == "log"]


def test_events_come_as_they_happen_and_end_with_the_job(service: Service) -> None:
    job_id = service.start_job()
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        stream = read_events(response.iter_lines())
        queued = next(stream)
        assert (queued["id"], queued["event"]) == ("1", "state")
        assert json.loads(queued["data"])["data"]["state"] == "queued"
        claim = service.worker.claim()
        assert json.loads(next(stream)["data"])["data"] == {"state": "running", "attempt": 1}
        for message in ("one", "two"):  # each is seen before the next one exists
            service.worker.log(claim, message)
            assert json.loads(next(stream)["data"])["data"]["message"] == message
        service.worker.fail(claim)
        last = json.loads(next(stream)["data"])
        assert last["data"]["state"] == "failed"
        assert last["data"]["error"]["code"] == "unknown_op"
        assert last["seq"] == 5
        assert list(stream) == []


def test_a_stream_resumes_after_the_event_that_was_seen_last(service: Service) -> None:
    job_id = service.start_job()
    claim = service.worker.claim()
    service.worker.log(claim, "one", "two")
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        seen = [event for event, _ in zip(read_events(response.iter_lines()), range(3), strict=False)]
    assert messages(seen) == ["one"]
    service.worker.log(claim, "three")
    service.worker.fail(claim)
    resumed = follow(service, job_id, headers={"Last-Event-ID": seen[-1]["id"]})
    assert messages(resumed) == ["two", "three"]
    assert [event["id"] for event in seen + resumed] == ["1", "2", "3", "4", "5", "6"]
    assert messages(follow(service, job_id, params={"after": 4})) == ["three"]


def test_an_ended_job_is_told_from_its_first_event_and_sends_a_client_that_saw_all_away(service: Service) -> None:
    job_id = service.start_job()
    service.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    events = follow(service, job_id)
    assert [json.loads(event["data"])["data"]["state"] for event in events] == ["queued", "cancelled"]
    done = service.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": events[-1]["id"]})
    assert (done.status_code, done.content) == (204, b"")


def test_more_events_than_one_read_takes_arrive_in_order(service: Service) -> None:
    job_id = service.start_job()
    claim = service.worker.claim()
    expected = [str(number) for number in range(2 * BATCH + 1)]
    service.worker.log(claim, *expected)
    service.worker.fail(claim)
    assert messages(follow(service, job_id)) == expected


@pytest.mark.parametrize("number", ["-1", "x", str(2**31)])
def test_a_number_that_no_event_can_have_is_refused(sqlite_service: Service, number: str) -> None:
    job_id = sqlite_service.start_job()
    response = sqlite_service.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": number})
    problem(response, 422, "invalid_request")


def test_what_a_worker_logs_cannot_forge_an_event(sqlite_service: Service) -> None:
    job_id = sqlite_service.start_job()
    claim = sqlite_service.worker.claim()
    forged = "a\n\nevent: state\ndata: {}\r\rid: 9\u2028"
    sqlite_service.worker.log(claim, forged)
    sqlite_service.worker.fail(claim)
    events = follow(sqlite_service, job_id)
    assert [event["id"] for event in events] == ["1", "2", "3", "4"]
    assert messages(events) == [forged]


def test_many_open_streams_leave_room_for_other_requests(service: Service) -> None:
    job_id = service.start_job()
    claim = service.worker.claim()
    streams = 60  # more than the threads that the server works with
    connected = threading.Barrier(streams + 1)
    limits = httpx.Limits(max_connections=streams + 10)

    def watch(http: httpx.Client) -> int:
        with http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            events = read_events(response.iter_lines())
            next(events)
            connected.wait(timeout=60)
            return 1 + sum(1 for _ in events)

    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=service.url, timeout=60, limits=limits))
        pool = stack.enter_context(ThreadPoolExecutor(streams))
        watchers = [pool.submit(watch, http) for _ in range(streams)]
        connected.wait(timeout=60)
        began = time.monotonic()
        http.get("/healthz").raise_for_status()
        http.get(f"/v1/jobs/{job_id}").raise_for_status()
        took_s = time.monotonic() - began
        service.worker.fail(claim)
        assert [watcher.result(timeout=60) for watcher in watchers] == [3] * streams
    assert took_s < 5
