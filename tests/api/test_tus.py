"""/v1/uploads: tus 1.0, its core and its extensions, and what a whole upload becomes."""

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import httpx
import pytest
from test_upload_transport import MIB, large_onnx

from app.dependencies import Plane
from app.tus import receive
from app.tus import service as tus_service
from models_store import uploads
from models_store.tables import Upload
from models_store.uploads import scope
from tests.api.answers import problem
from tests.api.processes import api_process, peak_memory_kib
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes
from tests.waiting import until
from worker.sweeper import remove_uploads

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}


def pairs(**values: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def begin(http: httpx.Client, size: int, **metadata: str) -> str:
    """The path of a new upload."""
    said = pairs(**({"kind": "model", "filename": "net.onnx"} | metadata))
    response = http.post("/v1/uploads", headers={**TUS, "Upload-Length": str(size), "Upload-Metadata": said})
    assert response.status_code == 201, response.text
    assert response.headers["Upload-Offset"] == "0"
    return response.headers["Location"]


def send(http: httpx.Client, path: str, offset: int, data: object, **headers: str) -> httpx.Response:
    return http.patch(path, content=data, headers={**BYTES, "Upload-Offset": str(offset), **headers})


def offset(http: httpx.Client, path: str) -> int:
    return int(http.head(path, headers=TUS).raise_for_status().headers["Upload-Offset"])


def stored_pieces(service: Service, path: str) -> list[str]:
    folder = service.blobs.incoming_dir.parent / scope(path.rpartition("/")[2])
    return [found.name for found in folder.rglob("*") if found.is_file()]


def test_what_is_known_of_the_protocol(sqlite_service: Service) -> None:
    response = sqlite_service.http.options("/v1/uploads")
    assert response.status_code == 204
    assert response.headers["Tus-Version"] == "1.0.0"
    assert response.headers["Tus-Max-Size"] == str(sqlite_service.settings.max_upload_bytes)
    assert {"creation", "checksum", "expiration", "termination"} <= set(response.headers["Tus-Extension"].split(","))
    assert {"sha1", "sha256"} == set(response.headers["Tus-Checksum-Algorithm"].split(","))


def test_a_file_in_pieces_becomes_a_model(service: Service) -> None:
    content = onnx_bytes("a" * 500)
    path = begin(service.http, len(content), name="my net")
    for start, end in ((0, 100), (100, 101), (101, 400)):
        response = send(service.http, path, start, content[start:end])
        assert (response.status_code, response.headers["Upload-Offset"]) == (204, str(end))
        assert response.headers["Tus-Resumable"] == "1.0.0"
        assert service.http.get(path).json()["state"] == "receiving"
    last = send(service.http, path, 400, content[400:])
    model = service.http.get(last.headers["Upload-Result"]).json()
    assert (model["name"], model["format"], model["state"]) == ("my net", "onnx", "inspecting")
    assert model["sha256"] == hashlib.sha256(content).hexdigest()
    view = service.http.get(path).json()
    assert (view["state"], view["model_id"], view["offset"]) == ("done", model["id"], len(content))
    assert stored_pieces(service, path) == []
    assert service.incoming() == []
    problem(send(service.http, path, len(content), b""), 409, "upload_ended")
    service.worker.inspect()
    assert service.http.get(f"/v1/models/{model['id']}").json()["state"] == "ready"


def test_a_whole_file_may_come_with_its_announcement(sqlite_service: Service) -> None:
    content = onnx_bytes()
    headers = {**BYTES, "Upload-Length": str(len(content)), "Upload-Metadata": pairs(kind="model", filename="n.onnx")}
    once = headers | {"Idempotency-Key": "one"}
    first, second = (sqlite_service.http.post("/v1/uploads", content=content, headers=once) for _ in range(2))
    assert first.status_code == 201, first.text
    assert first.headers["Upload-Offset"] == str(len(content))
    assert first.json()["model_id"]
    assert second.headers["Upload-Result"] == first.headers["Upload-Result"]
    assert len(sqlite_service.http.get("/v1/models").json()["items"]) == 1


def test_a_dataset_too(sqlite_service: Service) -> None:
    content = b"PK\x03\x04" + bytes(22) + b"\x05\0" + b"\0\0" + b"x.npy" + b"PK\x05\x06" + bytes(18)
    path = begin(sqlite_service.http, len(content), kind="dataset", filename="digits.npz", filetype="application/zip")
    result = send(sqlite_service.http, path, 0, content).headers["Upload-Result"]
    dataset = sqlite_service.http.get(result).json()
    assert (dataset["name"], dataset["format"]) == ("digits.npz", "npz")
    assert sqlite_service.http.get(path).json()["dataset_id"] == dataset["id"]


def test_the_door_is_that_of_every_upload(sqlite_service: Service) -> None:
    pickle = b"\x80\x04\x95" + bytes(50)
    path = begin(sqlite_service.http, len(pickle))
    refusal = problem(send(sqlite_service.http, path, 0, pickle), 422, "unsafe_format")
    view = sqlite_service.http.get(path).json()
    assert (view["state"], view["refusal"]["hint"]) == ("refused", refusal["hint"])
    assert stored_pieces(sqlite_service, path) == []
    announced = begin(sqlite_service.http, len(onnx_bytes()), sha256="0" * 64)
    problem(send(sqlite_service.http, announced, 0, onnx_bytes()), 400, "digest_mismatch")
    assert sqlite_service.http.get("/v1/models").json()["items"] == []


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Upload-Length": "9"}, 422, "invalid_request"),
        ({"Upload-Length": "9", "Upload-Metadata": pairs(filename="n")}, 422, "invalid_request"),
        ({"Upload-Length": "9", "Upload-Metadata": pairs(kind="picture")}, 422, "invalid_request"),
        ({"Upload-Length": "9", "Upload-Metadata": "kind bW9kZWw"}, 422, "invalid_request"),
        ({"Upload-Length": "9", "Upload-Metadata": pairs(kind="model", format="pt")}, 422, "invalid_request"),
        ({"Upload-Length": "-1", "Upload-Metadata": pairs(kind="model")}, 422, "invalid_request"),
        ({"Upload-Length": str(2**40), "Upload-Metadata": pairs(kind="model")}, 413, "upload_too_large"),
        ({"Tus-Resumable": "0.2.2", "Upload-Length": "9"}, 412, "unsupported_tus_version"),
    ],
)
def test_a_wrong_announcement_begins_nothing(
    sqlite_service: Service, headers: dict[str, str], status: int, code: str
) -> None:
    response = sqlite_service.http.post("/v1/uploads", headers=TUS | headers)
    problem(response, status, code)
    assert response.headers["Tus-Resumable"] == "1.0.0"
    if status == 412:
        assert response.headers["Tus-Version"] == "1.0.0"


def test_bytes_count_only_where_the_upload_stands(sqlite_service: Service) -> None:
    http = sqlite_service.http
    path = begin(http, 100)
    assert send(http, path, 0, b"x" * 10).status_code == 204
    for wrong in (0, 9, 11):
        problem(send(http, path, wrong, b"x"), 409, "offset_mismatch")
    problem(send(http, path, 10, b"x" * 91), 413, "upload_too_large")
    problem(send(http, path, 10, iter([b"x" * 50, b"x" * 41])), 413, "upload_too_large")
    problem(send(http, path, 10, b"x", **{"Content-Type": "application/octet-stream"}), 415, "unsupported_upload")
    problem(http.patch(path, content=b"x", headers=BYTES), 422, "invalid_request")
    assert offset(http, path) == 10


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_bytes_that_are_not_those_of_the_checksum_are_not_kept(sqlite_service: Service, algorithm: str) -> None:
    http, content = sqlite_service.http, onnx_bytes()
    digest = base64.b64encode(hashlib.new(algorithm, content[:20]).digest()).decode()
    path = begin(http, len(content))
    wrong = send(http, path, 0, content[:21], **{"Upload-Checksum": f"{algorithm} {digest}"})
    problem(wrong, 460, "checksum_mismatch")
    assert (offset(http, path), stored_pieces(sqlite_service, path), sqlite_service.incoming()) == (0, [], [])
    right = send(http, path, 0, content[:20], **{"Upload-Checksum": f"{algorithm} {digest}"})
    assert right.headers["Upload-Offset"] == "20"
    problem(send(http, path, 20, b"x", **{"Upload-Checksum": "crc32 AAAA"}), 400, "unsupported_checksum")


def broken_off(service: Service, path: str, start: int, length: int, data: bytes, extra: str = "") -> socket.socket:
    """A connection that has announced `length` bytes and sent some of them."""
    address = httpx.URL(service.url)
    connection = socket.create_connection((address.host, address.port or 80), timeout=10)
    headers = {**BYTES, "Host": "localhost", "Upload-Offset": start, "Content-Length": length}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"PATCH {path} HTTP/1.1\r\n{lines}{extra}\r\n".encode() + data)
    return connection


def held(service: Service, path: str) -> bool:
    with service.database.session(read_only=True) as session:
        return session.get_one(Upload, path.rpartition("/")[2]).holder is not None


def test_what_came_before_a_connection_broke_is_kept(service: Service) -> None:
    content = b"".join(large_onnx(3 * MIB))
    path = begin(service.http, len(content))
    with broken_off(service, path, 0, len(content), content[: 2 * MIB]):
        until(lambda: service.incoming() != [])
    until(lambda: offset(service.http, path) == 2 * MIB)
    with broken_off(service, path, 2 * MIB, MIB, b"y" * 1000, "Upload-Checksum: sha256 AAAA\r\n"):
        until(lambda: service.incoming() != [])
    until(lambda: service.incoming() == [] and not held(service, path))
    assert offset(service.http, path) == 2 * MIB, "bytes under a checksum count all or not at all"
    last = send(service.http, path, 2 * MIB, content[2 * MIB :])
    assert service.http.get(last.headers["Upload-Result"]).json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_one_request_at_a_time_sends_bytes_and_a_silent_one_loses_its_hold(service: Service) -> None:
    content = onnx_bytes("a" * 1000)
    path = begin(service.http, len(content))
    with broken_off(service, path, 0, len(content), content[:100]) as silent:
        until(lambda: service.incoming() != [])
        locked = send(service.http, path, 0, content)
        problem(locked, 423, "upload_locked")
        time.sleep(int(locked.headers["Retry-After"]) + 0.5)
        assert send(service.http, path, 0, content).status_code == 204
        silent.sendall(content[100:])
        assert silent.recv(4096).startswith(b"HTTP/1.1 409")
    assert len(service.http.get("/v1/models").json()["items"]) == 1


def test_another_replica_goes_on_after_a_restart(sqlite_url: str, serve: Serve) -> None:
    content = onnx_bytes("a" * 300)
    with serve(sqlite_url) as first:
        path = begin(first.http, len(content))
        send(first.http, path, 0, content[:200])
    with serve(sqlite_url) as second:
        assert offset(second.http, path) == 200
        assert send(second.http, path, 200, content[200:]).headers["Upload-Result"]


def test_an_upload_lasts_until_it_expires(sqlite_url: str, serve: Serve) -> None:
    with serve(sqlite_url, upload_kept_s=1.0) as service:
        path = begin(service.http, 10)
        response = send(service.http, path, 0, b"x")
        expires = parsedate_to_datetime(response.headers["Upload-Expires"])
        assert remove_uploads(service.database, service.blobs) == []
        until(lambda: service.http.get(path).status_code == 410)
        problem(send(service.http, path, 1, b"x"), 410, "upload_expired")
        assert abs(time.time() - expires.timestamp()) < 5
        assert remove_uploads(service.database, service.blobs) == [path.rpartition("/")[2]]
        assert stored_pieces(service, path) == []
        problem(service.http.get(path), 404, "upload_not_found")


def test_an_upload_may_be_ended_by_its_sender(sqlite_service: Service) -> None:
    http = sqlite_service.http
    path = begin(http, 10)
    send(http, path, 0, b"12345")
    assert len(stored_pieces(sqlite_service, path)) == 1
    assert http.delete(path, headers=TUS).status_code == 204
    assert stored_pieces(sqlite_service, path) == []
    problem(http.delete(path, headers=TUS), 404, "upload_not_found")
    assert http.head(path, headers=TUS).status_code == 404


def test_clients_without_patch_and_delete_say_them_in_a_header(sqlite_service: Service) -> None:
    http, content = sqlite_service.http, onnx_bytes()
    path = begin(http, len(content))
    headers = {**BYTES, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert http.post(path, content=content, headers=headers).status_code == 204
    assert http.post(path, headers={**TUS, "X-HTTP-Method-Override": "DELETE"}).status_code == 204


def test_memory_stays_flat(sqlite_url: str, tmp_path) -> None:
    size = 200 * MIB
    with api_process(sqlite_url, tmp_path) as (process, url), httpx.Client(base_url=url, timeout=60) as http:
        content = onnx_bytes()
        send(http, begin(http, len(content)), 0, content).raise_for_status()  # everything is imported by now
        before_kib = peak_memory_kib(process.pid)
        whole = sum(len(chunk) for chunk in large_onnx(size))
        path = begin(http, whole)
        result = send(http, path, 0, large_onnx(size))
        assert result.status_code == 204, result.text
        growth_kib = peak_memory_kib(process.pid) - before_kib
    assert growth_kib < 48 * 1024, f"{growth_kib} KiB more at the peak"


def test_requests_that_race_for_the_last_byte_make_one_model(service: Service) -> None:
    content = onnx_bytes()
    path = begin(service.http, len(content))
    answers: list[int] = []

    def race() -> None:
        with httpx.Client(base_url=service.url, timeout=30) as http:
            answers.append(send(http, path, 0, content).status_code)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers)[0] == 204
    assert set(answers[:]) <= {204, 409, 423}
    assert answers.count(204) == 1
    assert len(service.http.get("/v1/models").json()["items"]) == 1


class Gate:
    """Stops the first request that finishes an upload, before or after its first piece, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after_a_piece: bool = True) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        read = tus_service._bytes

        def gated(plane: Plane, upload_id: str) -> Iterator[bytes]:
            if self.reached.is_set():
                yield from read(plane, upload_id)
                return
            pieces = read(plane, upload_id)
            if after_a_piece:
                yield next(pieces)
            self.reached.set()
            assert self.opened.wait(20)
            yield from pieces

        monkeypatch.setattr(tus_service, "_bytes", gated)


def last_bytes(http: httpx.Client, content: bytes) -> str:
    """The path of an upload of which one byte is missing, in two pieces."""
    path = begin(http, len(content))
    for start, end in ((0, 10), (10, len(content) - 1)):
        assert send(http, path, start, content[start:end]).status_code == 204
    return path


def once_free(http: httpx.Client, path: str, offset: int) -> httpx.Response:
    """The answer to a PATCH without bytes, once no other request holds the upload."""
    give_up = time.monotonic() + 20
    while (answer := send(http, path, offset, b"")).status_code == 423 and time.monotonic() < give_up:
        time.sleep(0.05)
    return answer


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds lapse although their requests go on, as where a process was stopped for a while."""
    monkeypatch.setattr(receive, "RENEW_S", 3600.0)
    monkeypatch.setattr(uploads, "HOLD_S", 0.3)


def test_an_upload_is_held_until_it_is_a_model(
    service: Service, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    monkeypatch.setattr(receive, "RENEW_S", 0.2)
    monkeypatch.setattr(uploads, "HOLD_S", 1.0)
    content, gate = onnx_bytes(), Gate(monkeypatch)
    path = last_bytes(service.http, content)
    finishing = pool.submit(send, service.http, path, len(content) - 1, content[-1:])
    assert gate.reached.wait(20)
    time.sleep(1.5)
    locked = send(service.http, path, len(content), b"")
    gate.opened.set()
    problem(locked, 423, "upload_locked")
    assert int(locked.headers["Retry-After"]) >= 1
    assert finishing.result().headers["Upload-Result"]
    problem(send(service.http, path, len(content), b""), 409, "upload_ended")
    assert len(service.http.get("/v1/models").json()["items"]) == 1


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("after_a_piece", [True, False])
def test_whoever_finishes_late_finds_what_the_other_has_made(
    service: Service, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor, after_a_piece: bool
) -> None:
    content, gate = onnx_bytes(), Gate(monkeypatch, after_a_piece=after_a_piece)
    path = last_bytes(service.http, content)
    late = pool.submit(send, service.http, path, len(content) - 1, content[-1:])
    assert gate.reached.wait(20)
    first = once_free(service.http, path, len(content))
    gate.opened.set()
    assert (first.status_code, late.result().status_code) == (204, 204), late.result().text
    assert late.result().headers["Upload-Result"] == first.headers["Upload-Result"]
    assert service.http.get(path).json()["state"] == "done"
    assert len(service.http.get("/v1/models").json()["items"]) == 1


@pytest.mark.usefixtures("frozen")
def test_a_refusal_stands(service: Service, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor) -> None:
    pickle, gate = b"\x80\x04\x95" + bytes(50), Gate(monkeypatch, after_a_piece=False)
    path = last_bytes(service.http, pickle)
    late = pool.submit(send, service.http, path, len(pickle) - 1, pickle[-1:])
    assert gate.reached.wait(20)
    problem(once_free(service.http, path, len(pickle)), 422, "unsafe_format")
    gate.opened.set()
    problem(late.result(), 409, "upload_ended")
    assert service.http.get(path).json()["refusal"]["code"] == "unsafe_format"


def test_an_upload_that_is_deleted_while_it_is_finished_becomes_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    content, gate = onnx_bytes(), Gate(monkeypatch)
    path = last_bytes(service.http, content)
    finishing = pool.submit(send, service.http, path, len(content) - 1, content[-1:])
    assert gate.reached.wait(20)
    assert service.http.delete(path, headers=TUS).status_code == 204
    gate.opened.set()
    problem(finishing.result(), 404, "upload_not_found")
    assert service.http.get("/v1/models").json()["items"] == []


def test_an_upload_whose_bytes_were_lost_ends(sqlite_service: Service) -> None:
    content = onnx_bytes()
    path = last_bytes(sqlite_service.http, content)
    sqlite_service.blobs.delete_scope(scope(path.rpartition("/")[2]))
    problem(send(sqlite_service.http, path, len(content) - 1, content[-1:]), 409, "pieces_gone")
    assert sqlite_service.http.get(path).json()["state"] == "refused"
