"""The client's uploads go on where they broke off: in the same process, and in another one."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from test_upload_transport import MIB, large_onnx

from benchmarks.cutting_relay import CuttingRelay
from espalier.client import AsyncClient, Client
from espalier.client.synchronous import sending
from espalier.errors import RequestRefused, ServiceUnreachable
from tests.api.running_api import Serve, Service


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    path = tmp_path / "large.onnx"
    path.write_bytes(b"".join(large_onnx(12 * MIB)))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_connections_that_break_cost_no_bytes_twice(sqlite_service: Service, large_file: Path, tmp_path: Path) -> None:
    relay = CuttingRelay(sqlite_service.url, [3 * MIB, 2 * MIB, 4 * MIB])
    told: list[int] = []
    with Client(relay.url, state=tmp_path / "state") as client:
        upload = client.upload_model(large_file, progress=lambda done, total: told.append(done))
    relay.close()
    assert relay.made == 3
    assert (upload.name, upload.sha256) == ("large.onnx", sha256(large_file))
    assert told[-1] == large_file.stat().st_size
    assert relay.passed_bytes < large_file.stat().st_size + MIB
    assert list((tmp_path / "state" / "uploads").iterdir()) == []
    assert sqlite_service.incoming() == []


def test_another_process_goes_on(
    serve: Serve, sqlite_url: str, large_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "GIVE_UP_AFTER_S", 0.5)
    with serve(sqlite_url) as service:
        relay = CuttingRelay(service.url, [5 * MIB], on_cut=lambda: setattr(relay, "down", True))
        with Client(relay.url, state=tmp_path / "state") as first, pytest.raises(ServiceUnreachable):
            first.upload_model(large_file)
        (remembered,) = (tmp_path / "state" / "uploads").iterdir()
        offset = service.http.get(remembered.read_text()).json()["offset"]
        assert 4 * MIB < offset <= 5 * MIB

        relay.down = False
        told: list[int] = []
        with Client(relay.url, state=tmp_path / "state") as second:
            upload = second.upload_model(large_file, progress=lambda done, total: told.append(done))
        relay.close()
        assert told[0] == offset
        assert upload.sha256 == sha256(large_file)
        assert len(service.http.get("/v1/models").json()["items"]) == 1


def test_what_was_remembered_and_is_gone_begins_anew(
    sqlite_service: Service, large_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "GIVE_UP_AFTER_S", 0.5)
    relay = CuttingRelay(sqlite_service.url, [2 * MIB], on_cut=lambda: setattr(relay, "down", True))
    with Client(relay.url, state=tmp_path / "state") as client:
        with pytest.raises(ServiceUnreachable):
            client.upload_model(large_file)
        (remembered,) = (tmp_path / "state" / "uploads").iterdir()
        sqlite_service.http.delete(remembered.read_text(), headers={"Tus-Resumable": "1.0.0"}).raise_for_status()
        relay.down = False
        assert client.upload_model(large_file).sha256 == sha256(large_file)
    relay.close()


def test_a_refused_file_is_refused_once(sqlite_service: Service, tmp_path: Path) -> None:
    pickle = tmp_path / "network.onnx"
    pickle.write_bytes(b"\x80\x04\x95" + bytes(9 * MIB))
    for _ in range(2):
        with (
            Client(sqlite_service.url, state=tmp_path / "state") as client,
            pytest.raises(RequestRefused) as refused,
        ):
            client.upload_model(pickle)
        assert (refused.value.code, bool(refused.value.hint)) == ("unsafe_format", True)


def test_the_client_to_be_awaited_does_the_same(sqlite_service: Service, large_file: Path, tmp_path: Path) -> None:
    relay = CuttingRelay(sqlite_service.url, [3 * MIB, 2 * MIB])

    async def upload() -> tuple[str, list[str]]:
        async with AsyncClient(relay.url, state=tmp_path / "state") as client:
            ticks: list[str] = []

            async def tick() -> None:
                while True:
                    ticks.append("tick")
                    await asyncio.sleep(0.01)

            ticking = asyncio.create_task(tick())
            sent = await client.upload_model(large_file)
            ticking.cancel()
            return sent.sha256, ticks

    digest, ticks = asyncio.run(upload())
    relay.close()
    assert relay.made == 2
    assert digest == sha256(large_file)
    assert len(ticks) > 5, "others had no turn meanwhile"
