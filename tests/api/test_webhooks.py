"""/v1/webhooks and what follows from them: signed, logged, repeated, and never sent where they must not go."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook

from models_store import targets
from models_store.database import Database
from models_store.database_time import database_now
from models_store.documents.job_spec import JobKind
from models_store.documents.webhook import DeliveryState, Happening
from models_store.jobs import JobRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import WebhookDelivery
from models_store.targets import Rules
from models_store.webhooks import SCHEDULE_S, Outcome, Sending, WebhookRepository
from tests.api.answers import problem
from tests.api.receiver import Receiver, receiving
from tests.api.running_api import Serve, Service
from tests.api.store_side import BAD_MODEL
from worker import post as post_module
from worker.deliveries import deliver_all, headers
from worker.post import post

ANYWHERE = Rules(http=True, private_networks=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def open_service(database_url: str, serve: Serve) -> Iterator[Service]:
    """A service that may call this machine, on SQLite and on PostgreSQL in turn."""
    with serve(database_url, webhook_http=True, webhook_private_networks=True) as service:
        yield service


def add(service: Service, url: str, *events: str) -> dict[str, str]:
    response = service.http.post("/v1/webhooks", json={"url": url, "events": list(events)})
    assert response.status_code == 201, response.text
    return response.json()


def deliver(service: Service) -> int:
    return deliver_all(service.database, ANYWHERE, threading.Event())


def make_due(service: Service) -> None:
    with service.database.session() as session:
        session.execute(update(WebhookDelivery).values(due_at=database_now(-1)))


def deliveries(service: Service, hook: dict[str, str], **query: str) -> list[dict[str, object]]:
    return service.http.get(f"/v1/webhooks/{hook['id']}/deliveries", params=query).raise_for_status().json()["items"]


def test_the_official_test_vector() -> None:
    """Of the Standard Webhooks reference libraries."""
    at = datetime.fromtimestamp(1614265330, UTC)
    secret, message, body = (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}',
    )  # fmt: skip
    sent = headers(Sending("dlv_", 1, message, "https://x", secret, body), at)
    assert sent["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert (sent["webhook-id"], sent["webhook-timestamp"]) == (message, "1614265330")


def test_a_job_is_told_from_start_to_end_and_each_message_verifies(open_service: Service, receiver: Receiver) -> None:
    service = open_service
    hook = add(service, f"{receiver.url}/hook?x=1")
    job_id = service.start_job(label="nightly")
    service.worker.succeed(service.worker.claim())
    assert deliver(service) == 3
    told = [Webhook(hook["secret"]).verify(request.body, request.headers) for request in receiver.received]
    assert sorted(notice["type"] for notice in told) == ["job.running", "job.succeeded", "model.ready"]
    done = next(notice for notice in told if notice["type"] == "job.succeeded")
    assert (done["data"]["id"], done["data"]["label"]) == (job_id, "nightly")
    assert done["data"]["links"]["report"] == f"/v1/jobs/{job_id}/report"
    assert datetime.fromisoformat(done["timestamp"]) <= datetime.now(UTC) + timedelta(seconds=5)
    assert {request.path for request in receiver.received} == {"/hook?x=1"}
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 3
    log = deliveries(service, hook)
    assert {each["state"] for each in log} == {"delivered"}
    whole = service.http.get(f"/v1/webhooks/{hook['id']}/deliveries/{log[0]['id']}").json()
    assert [(attempt["number"], attempt["status"]) for attempt in whole["log"]] == [(1, 204)]
    assert whole["body"].encode() in receiver.bodies()


def test_what_is_rolled_back_is_not_told(database: Database) -> None:
    with database.of_project(DEFAULT_PROJECT).session() as session:
        WebhookRepository(session).add("https://example.org", (), "")
        job = JobRepository(session).create(JobKind.PRUNE, {})

    def cancel_and_crash() -> None:
        with database.session() as session:
            JobRepository(session).request_cancel(job.id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cancel_and_crash()
    with database.session() as session:
        assert session.scalars(select(WebhookDelivery)).all() == []
        JobRepository(session).request_cancel(job.id)
    with database.session() as session:
        assert [row.happening for row in session.scalars(select(WebhookDelivery))] == ["job.cancelled"]


def test_an_endpoint_hears_what_it_asked_for(open_service: Service, receiver: Receiver) -> None:
    add(open_service, f"{receiver.url}/failures", "job.failed", "model.rejected")
    open_service.start_job()
    open_service.worker.fail(open_service.worker.claim())
    open_service.upload_model()
    open_service.worker.inspect(reject=True)
    deliver(open_service)
    told = [json.loads(body) for body in receiver.bodies()]
    assert sorted(notice["type"] for notice in told) == ["job.failed", "model.rejected"]
    assert {str(notice["data"].get("error") or notice["data"].get("reason")) for notice in told} == {
        str(BAD_MODEL.model_dump(mode="json"))
    }


def test_failures_are_tried_again_as_scheduled_and_then_given_up(open_service: Service, receiver: Receiver) -> None:
    service = open_service
    hook = add(service, receiver.url)
    receiver.answer = lambda _: (500, {}, b"broken\0")
    (first,) = [service.http.post(f"/v1/webhooks/{hook['id']}/test").json()]
    for number, pause_s in enumerate((*SCHEDULE_S[1:], None), start=1):
        assert deliver(service) == 1
        seen = service.http.get(f"/v1/webhooks/{hook['id']}/deliveries/{first['id']}").json()
        last = seen["log"][-1]
        assert (seen["attempts"], last["number"], last["status"]) == (number, number, 500)
        assert last["answer"].startswith("broken")
        if pause_s is None:
            assert (seen["state"], seen["next_attempt_at"]) == ("failed", None)
        else:
            wait = datetime.fromisoformat(seen["next_attempt_at"]) - datetime.fromisoformat(last["at"])
            assert (seen["state"], round(wait.total_seconds())) == ("pending", pause_s)
            assert deliver(service) == 0
            make_due(service)
    assert deliver(service) == 0
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1
    receiver.answer = lambda _: (200, {}, b"")
    again = service.http.post(f"/v1/webhooks/{hook['id']}/deliveries/{first['id']}/redeliver")
    assert again.status_code == 202
    assert deliver(service) == 1
    assert receiver.received[-1].headers["webhook-id"] == first["message_id"] == again.json()["message_id"]
    assert [each["state"] for each in deliveries(service, hook)] == ["delivered", "failed"]
    assert [each["id"] for each in deliveries(service, hook, state="failed")] == [first["id"]]


def test_an_endpoint_that_is_gone_is_left_alone(open_service: Service, receiver: Receiver) -> None:
    service = open_service
    hook = add(service, receiver.url)
    path = f"/v1/webhooks/{hook['id']}"
    receiver.answer = lambda _: (410, {}, b"")
    for _ in range(3):
        service.http.post(f"{path}/test").raise_for_status()
    assert deliver(service) == 1
    seen = service.http.get(path).json()
    assert (seen["enabled"], "410" in seen["disabled_reason"]) == (False, True)
    assert {each["state"] for each in deliveries(service, hook)} == {"failed"}
    problem(service.http.post(f"{path}/test"), 409, "webhook_disabled")
    service.start_job()
    service.worker.claim()
    assert len(deliveries(service, hook)) == 3
    changed = service.http.patch(path, json={"enabled": True, "events": ["job.failed"]}).json()
    assert (changed["enabled"], changed["disabled_reason"], changed["events"]) == (True, None, ["job.failed"])
    assert service.http.post(f"{path}/test").status_code == 202
    assert service.http.delete(path).status_code == 204
    problem(service.http.get(path), 404, "webhook_not_found")
    assert deliver(service) == 0


def test_what_waits_for_an_endpoint_that_is_disabled_is_not_sent(open_service: Service, receiver: Receiver) -> None:
    service = open_service
    hook = add(service, receiver.url)
    path = f"/v1/webhooks/{hook['id']}"
    for _ in range(2):
        service.http.post(f"{path}/test").raise_for_status()
    disabled = service.http.patch(path, json={"enabled": False}).json()
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "By request.")
    assert [each["state"] for each in deliveries(service, hook)] == ["failed"] * 2
    service.http.patch(path, json={"enabled": True}).raise_for_status()
    assert (deliver(service), receiver.received) == (0, [])


def test_a_sender_that_dies_gives_its_delivery_back(database: Database) -> None:
    with database.of_project(DEFAULT_PROJECT).session() as session:
        webhooks = WebhookRepository(session)
        endpoint = webhooks.add("https://example.org", (), "")
        webhooks.tell_one(endpoint, Happening.WEBHOOK_TEST, webhooks.now(), {})
        dead = webhooks.claim()
    with database.session() as session:
        assert WebhookRepository(session).claim() is None
        session.execute(update(WebhookDelivery).values(due_at=database_now(-1)))
        alive = WebhookRepository(session).claim()
    assert dead is not None
    assert alive is not None
    assert (dead.attempt, alive.attempt) == (1, 2)
    with database.session() as session:
        WebhookRepository(session).record(alive, Outcome(1, status=200))
        WebhookRepository(session).record(dead, Outcome(1, status=500))
    with database.session() as session:
        delivery = session.get_one(WebhookDelivery, alive.delivery_id)
        assert (delivery.state, delivery.attempts) == (DeliveryState.DELIVERED, 2)
        assert len(WebhookRepository(session).attempts(delivery.id)) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "https://user:secret@example.org/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://example.org:99999/",
        "https://exämple.org/",
        "https:///nothing",
        "https://" + "x" * 2000,
    ],
)
def test_urls_that_are_refused(sqlite_service: Service, url: str) -> None:
    response = sqlite_service.http.post("/v1/webhooks", json={"url": url})
    assert response.status_code == 422, response.text
    problem(response, 422, response.json()["code"])
    assert response.json()["code"] in ("target_not_allowed", "invalid_request")
    outcome = post(url, {}, b"", Rules())
    assert outcome.status is None
    assert str(outcome.error).startswith("refused: ")


def test_a_name_that_leads_inside_is_refused_at_every_sending(sqlite_service: Service, receiver: Receiver) -> None:
    port = receiver.url.rpartition(":")[2]
    hook = add(sqlite_service, f"https://localhost:{port}/")
    sqlite_service.http.post(f"/v1/webhooks/{hook['id']}/test").raise_for_status()
    deliver_all(sqlite_service.database, Rules(), threading.Event())
    (delivery,) = deliveries(sqlite_service, hook)
    log = sqlite_service.http.get(f"/v1/webhooks/{hook['id']}/deliveries/{delivery['id']}").json()["log"]
    assert log[0]["error"] == "refused: its address is not a public one"
    assert receiver.received == []


def test_the_address_that_was_checked_is_the_one_called(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that changes its address between check and call: it is looked up once only."""
    lookups = []
    real = socket.getaddrinfo

    def changing(host: str, *arguments: object, **options: object) -> object:
        if host != "rebinding.example":
            return real(host, *arguments, **options)
        lookups.append(host)
        if options.get("flags") == socket.AI_NUMERICHOST:
            raise socket.gaierror
        return real("127.0.0.1" if len(lookups) == 2 else "192.0.2.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    port = receiver.url.rpartition(":")[2]
    assert post(f"http://rebinding.example:{port}/", {}, b"x", ANYWHERE).status == 204
    assert receiver.received[0].headers["host"] == f"rebinding.example:{port}"
    assert len(lookups) == 2


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda _: (302, {"Location": f"{receiver.url}/elsewhere"}, b"")
    outcome = post(receiver.url, {}, b"", ANYWHERE)
    assert (outcome.status, outcome.taken, len(receiver.received)) == (302, False, 1)


def test_a_receiver_that_drips_or_floods_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_module, "TIMEOUT_S", 0.5)

    def serve(chunk: bytes, pause_s: float) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, listener:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    while True:
                        connection.sendall(chunk)
                        time.sleep(pause_s)
                except OSError:
                    pass

        threading.Thread(target=drip, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    began = time.monotonic()
    post(serve(b"x", 0.1), {}, b"", ANYWHERE)
    assert time.monotonic() - began < 3
    flood = post(serve(b"x" * 65_536, 0), {}, b"", ANYWHERE)
    assert len(flood.answer or "") <= post_module.READ_BYTES


def test_a_handshake_can_be_cut_off() -> None:
    """By the watchdog: as long as the handshake takes, it has to reach the wire."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        target = targets.parse(f"https://127.0.0.1:{listener.getsockname()[1]}/", ANYWHERE)
        connection = post_module._Connection(target, "127.0.0.1")
        connecting = pool.submit(connection.connect)
        with listener.accept()[0] as peer:
            assert peer.recv(1)  # it has said hello, and now waits
            connection.cut()
            assert isinstance(connecting.exception(timeout=8), OSError)
        connection.close()


def test_a_connection_that_comes_too_late_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_module, "TIMEOUT_S", 0.2)
    connect = socket.create_connection

    def slowly(*arguments: object) -> socket.socket:
        time.sleep(0.6)
        return connect(*arguments)

    monkeypatch.setattr(post_module.socket, "create_connection", slowly)
    assert post(receiver.url, {}, b"", ANYWHERE).error == "no answer within 0.2 s"
    assert receiver.received == []


def test_nobody_there_is_an_outcome() -> None:
    assert "ConnectionRefusedError" in str(post("http://127.0.0.1:1/", {}, b"", ANYWHERE).error)
    assert str(post("https://no-such-host.invalid/", {}, b"", Rules()).error).startswith("unknown host: ")
