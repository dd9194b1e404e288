"""How files come in: limits, digests, broken forms, dropped connections, memory."""

import base64
import hashlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.uploads.onnx_frame import GRAPH
from tests.api.answers import problem
from tests.api.processes import api_process, peak_memory_kib
from tests.api.running_api import Serve, Service
from tests.api.store_side import onnx_bytes
from tests.waiting import until

MIB = 2**20
BOUNDARY = "boundary"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def large_onnx(size_bytes: int) -> Iterator[bytes]:
    """A stream that frames like an ONNX model: an IR version, and a graph of `size_bytes` bytes."""
    length, rest = bytearray(), size_bytes
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    yield bytes([0x08, 10, GRAPH << 3 | 2]) + bytes([*length, rest])
    chunk = os.urandom(MIB)
    for _ in range(size_bytes // MIB):
        yield chunk


@pytest.fixture
def small_service(sqlite_url: str, serve: Serve) -> Iterator[Service]:
    """Takes files of 4 MiB at most."""
    with serve(sqlite_url, max_upload_bytes=4 * MIB) as service:
        yield service


@pytest.mark.parametrize("announced", ["right", "upper case", "wrong"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_digest_in_the_form_is_checked_wherever_it_stands(
    sqlite_service: Service, announced: str, place: str
) -> None:
    content = onnx_bytes()
    right = hashlib.sha256(content).hexdigest()
    digest = part("sha256", {"right": right, "upper case": right.upper(), "wrong": "0" * 64}[announced].encode())
    file = part("file", content, "net.onnx")
    body = form(digest, file) if place == "before" else form(file, digest)
    response = sqlite_service.http.post("/v1/models", content=body, headers=FORM)
    if announced == "wrong":
        assert right in problem(response, 400, "digest_mismatch")["detail"]
        assert sqlite_service.http.get("/v1/models").json()["items"] == []
    else:
        assert response.status_code == 201, response.text


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        (f"sha-256=:{base64.b64encode(bytes(32)).decode()}:", 400, "digest_mismatch"),
        ("sha-512=:AA==:", 422, "invalid_request"),
        ("sha-256=:AA==:", 422, "invalid_request"),
        ("sha-256=:A:", 422, "invalid_request"),
        ("nonsense", 422, "invalid_request"),
    ],
)
def test_a_repr_digest_is_checked_or_refused_but_never_ignored(
    sqlite_service: Service, header: str, status: int, code: str
) -> None:
    response = sqlite_service.http.put("/v1/models/net", content=onnx_bytes(), headers={"Repr-Digest": header})
    problem(response, status, code)
    assert sqlite_service.incoming() == []


def test_a_file_may_be_exactly_as_large_as_allowed(sqlite_url: str, serve: Serve) -> None:
    content = onnx_bytes()
    with serve(sqlite_url, max_upload_bytes=len(content)) as service:
        assert service.http.put("/v1/models/net", content=content).status_code == 201
        assert service.http.post("/v1/models", files={"file": content}).status_code == 201
        problem(service.http.put("/v1/models/net", content=content + b"\0"), 413, "upload_too_large")
        problem(service.http.post("/v1/models", files={"file": content + b"\0"}), 413, "upload_too_large")


def test_a_body_announced_as_too_large_is_refused_before_it_is_sent(small_service: Service) -> None:
    address = httpx.URL(small_service.url)
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        connection.sendall(
            b"PUT /v1/models/net HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_stream_of_unknown_length_is_cut_at_the_limit(small_service: Service, method: str) -> None:
    if method == "PUT":
        response = small_service.http.put("/v1/models/net", content=large_onnx(16 * MIB))
    else:
        head, tail = form(part("file", b"<>", "net.onnx")).split(b"<>")
        body = (chunk for chunk in itertools.chain([head], large_onnx(16 * MIB), [tail]))
        response = small_service.http.post("/v1/models", content=body, headers=FORM)
    problem(response, 413, "upload_too_large")
    assert small_service.incoming() == []


def test_a_form_cannot_hide_its_size_outside_the_file(small_service: Service) -> None:
    padding = (b" " * MIB for _ in range(8))
    body = (chunk for chunk in itertools.chain([form(part("file", onnx_bytes(), "net.onnx"))], padding))
    problem(small_service.http.post("/v1/models", content=body, headers=FORM), 413, "upload_too_large")


@pytest.mark.parametrize(
    ("body", "status", "code", "word"),
    [
        (form(part("name", b"net")), 422, "invalid_request", "file"),
        (form(part("file", b"model.onnx")), 422, "invalid_request", "file=@PATH"),
        (form(part("file", b"a", "a"), part("file", b"b", "b")), 422, "invalid_request", "one file"),
        (form(part("weights", b"a", "a")), 422, "invalid_request", "weights"),
        (form(part("name", b"n" * 20_000), part("file", b"a", "a")), 422, "invalid_request", "name"),
        (form(*(part(f"f{number}", b"x") for number in range(40))), 422, "invalid_request", "fields"),
        (part("file", onnx_bytes(), "net.onnx"), 400, "upload_incomplete", "boundary"),
        (b"this is no form", 400, "upload_incomplete", "form"),
        (b"", 400, "upload_incomplete", "boundary"),
    ],
)
def test_broken_forms_are_refused_with_the_reason(
    sqlite_service: Service, body: bytes, status: int, code: str, word: str
) -> None:
    response = sqlite_service.http.post("/v1/models", content=body, headers=FORM)
    assert word in problem(response, status, code)["detail"]
    assert sqlite_service.incoming() == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_that_is_no_form_is_told_how_to_be_one(sqlite_service: Service, content_type: str) -> None:
    response = sqlite_service.http.post("/v1/models", content=onnx_bytes(), headers={"Content-Type": content_type})
    assert "curl" in problem(response, 415, "unsupported_upload")["hint"]


def test_a_form_sent_by_put_is_told_so(sqlite_service: Service) -> None:
    response = sqlite_service.http.put("/v1/models/net.onnx", files={"file": onnx_bytes()})
    assert "curl -T" in problem(response, 415, "unsupported_upload")["hint"]


@pytest.mark.parametrize("head", [b"PUT /v1/models/net HTTP/1.1\r\n", b"POST /v1/datasets HTTP/1.1\r\n"])
def test_a_dropped_connection_leaves_nothing_behind(sqlite_service: Service, head: bytes) -> None:
    address = httpx.URL(sqlite_service.url)
    with socket.create_connection((address.host, address.port or 80), timeout=10) as connection:
        content_type = f"Content-Type: {FORM['Content-Type']}\r\n".encode() if head.startswith(b"POST") else b""
        connection.sendall(head + b"Host: localhost\r\nContent-Length: 10000000\r\n" + content_type + b"\r\n")
        connection.sendall(part("file", b"\x08\x0a" * MIB, "net.onnx"))
        until(lambda: sqlite_service.incoming() != [])
    until(lambda: sqlite_service.incoming() == [])
    assert sqlite_service.http.get("/v1/models").json()["items"] == []
    sqlite_service.upload_model()


def test_memory_stays_flat_while_large_files_come_in(sqlite_url: str, tmp_path: Path) -> None:
    size_mib = 300
    with api_process(sqlite_url, tmp_path) as (process, url), httpx.Client(base_url=url, timeout=60) as http:
        http.post("/v1/models", files={"file": onnx_bytes()}).raise_for_status()  # everything is imported by now
        before_kib = peak_memory_kib(process.pid)
        head, tail = form(part("file", b"<>", "net.onnx")).split(b"<>")
        body = (chunk for chunk in itertools.chain([head], large_onnx(size_mib * MIB), [tail]))
        answers = [
            http.put("/v1/models/net", content=large_onnx(size_mib * MIB)),
            http.post("/v1/models", content=body, headers=FORM),
        ]
        growth_kib = peak_memory_kib(process.pid) - before_kib
    for answer in answers:
        assert answer.status_code == 201, answer.text
        assert answer.json()["size_bytes"] > size_mib * MIB
    assert growth_kib < 32 * 1024, f"{growth_kib} KiB more at the peak"


@pytest.mark.parametrize(
    ("boundary", "told"), [("", "0 characters"), ("x" * 71, "71 characters"), ("x" * 5000, "5000")]
)
def test_a_boundary_of_no_form_is_refused(sqlite_service: Service, boundary: str, told: str) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    body = problem(sqlite_service.http.post("/v1/models", content=b"x", headers=headers), 415, "unsupported_upload")
    assert told in body["detail"]
