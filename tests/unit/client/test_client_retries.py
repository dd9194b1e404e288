"""What the client repeats, takes up again and remembers where the service is in trouble; only answers are faked."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from espalier.client import Client, exchange
from espalier.client.files import CHUNK_BYTES
from espalier.client.synchronous import client as client_module
from espalier.client.synchronous import sending
from espalier.errors import RequestRefused, ServiceUnreachable

CONTENT = b"pruned.." * (2 * CHUNK_BYTES // 8)
FILE = {
    "name": "pruned.onnx",
    "media_type": "a",
    "size_bytes": len(CONTENT),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
}
EVENT = (
    b'id: 1\nevent: state\ndata: {"seq": 1, "type": "state", "at": "2026-01-01T00:00:00Z", "attempt": 1, '
    b'"data": {"state": "succeeded"}}\n\n'
)
Answer = Callable[[httpx.Request], httpx.Response]


def refused(status: int, code: str = "trouble", **headers: str) -> httpx.Response:
    problem = {"type": "x", "title": "t", "status": status, "detail": "d", "code": code, "hint": "h"}
    return httpx.Response(status, json=problem, headers={"Content-Type": "application/problem+json"} | headers)


class Breaking(httpx.SyncByteStream):
    """Half of the file, and no more."""

    def __iter__(self) -> Iterator[bytes]:
        yield CONTENT[: len(CONTENT) // 2]
        raise httpx.ReadError("gone")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those that the client would have made."""
    made: list[float] = []
    for module in (client_module, sending):
        monkeypatch.setattr(module, "sleep", made.append)
    return made


def client_of(tmp_path: Path, *answers: httpx.Response | httpx.TransportError) -> Client:
    """Of a service that lists one file, and gives these answers in turn to what else it is asked."""
    left = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/artifacts"):
            return httpx.Response(200, json={"items": [FILE]})
        said = next(left)
        if isinstance(said, httpx.TransportError):
            raise said
        return said

    return Client("http://x", transport=httpx.MockTransport(answer), state=tmp_path)


def test_a_download_waits_as_long_as_it_is_told_to(tmp_path: Path, pauses: list[float]) -> None:
    wait = {"Retry-After": "7"}
    client = client_of(tmp_path, refused(429, **wait), refused(503), httpx.Response(200, content=CONTENT))
    client.download("job_1", "pruned.onnx", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert pauses == [7.0, client_module.RECONNECT_PAUSE_S]


def test_a_download_goes_on_once_the_service_is_back(tmp_path: Path, pauses: list[float]) -> None:
    rest = httpx.Response(206, content=CONTENT[len(CONTENT) // 2 :])
    client = client_of(tmp_path, httpx.Response(200, stream=Breaking()), httpx.ConnectError("refused"), rest)
    client.download("job_1", "pruned.onnx", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert len(pauses) == 2


@pytest.mark.parametrize(
    "last", [refused(404), refused(429, **{"Retry-After": str(exchange.LONGEST_RETRY_AFTER_S + 1).partition(".")[0]})]
)
def test_a_download_that_cannot_go_on_ends(tmp_path: Path, pauses: list[float], last: httpx.Response) -> None:
    with pytest.raises(RequestRefused):
        client_of(tmp_path, last).download("job_1", "pruned.onnx", tmp_path / "out")
    assert (pauses, (tmp_path / "out").exists()) == ([], False)


def test_a_download_is_given_up_where_nothing_more_comes(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RECONNECT_FOR_S", -1.0)
    with pytest.raises(ServiceUnreachable):
        client_of(tmp_path, httpx.ConnectError("refused")).download("job_1", "pruned.onnx", tmp_path / "out")


def test_events_wait_as_long_as_they_are_told_to(tmp_path: Path, pauses: list[float]) -> None:
    wait = {"Retry-After": "7"}
    client = client_of(tmp_path, refused(429, **wait), refused(503, **wait), httpx.Response(200, content=EVENT))
    assert [event.seq for event in client.events("job_1")] == [1]
    assert pauses == [7.0, 7.0]


@pytest.mark.parametrize(
    ("answer", "remembered"),
    [
        (refused(503), True),
        (refused(429, "rate_limited"), True),
        (refused(423, "upload_locked"), True),
        (refused(401, "key_expired"), True),
        (refused(507, "storage_full"), True),
        (refused(413, "too_many_pieces"), False),
        (refused(422, "unsafe_format"), False),
    ],
)
def test_an_upload_is_forgotten_only_where_it_cannot_go_on(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch, answer: httpx.Response, remembered: bool
) -> None:
    monkeypatch.setattr(sending, "GIVE_UP_AFTER_S", -1.0)
    file = tmp_path / "large.onnx"
    file.write_bytes(b"a" * (sending.SMALL_BYTES + 1))
    standing = {
        "id": "upl_1",
        "kind": "model",
        "name": "n",
        "state": "receiving",
        "offset": 0,
        "size_bytes": sending.SMALL_BYTES + 1,
        "model_id": None,
        "dataset_id": None,
        "refusal": None,
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-02T00:00:00Z",
    }

    def service(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(201, headers={"Location": "/v1/uploads/upl_1"})
        return httpx.Response(200, json=standing) if request.method == "GET" else answer

    client = Client("http://x", transport=httpx.MockTransport(service), state=tmp_path)
    with pytest.raises(RequestRefused) as error:
        client.upload_model(file)
    assert error.value.status == answer.status_code
    assert len(list((tmp_path / "uploads").iterdir())) == remembered
