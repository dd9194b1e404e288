"""Uploads of 1 GiB (issue 5): over tus through a connection that is cut three times, and as one raw PUT.

    python -m benchmarks.uploads

The API is a process of its own over SQLite and a local folder. The file frames like an ONNX model and holds random
bytes. Rounds take turns: the disk is measured by writing the same number of bytes to the same folder and flushing
them, right before each raw PUT, so whatever else the machine does strikes both.
"""

import hashlib
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine, memory, results, running_service
from benchmarks.cutting_relay import CuttingRelay
from espalier.client import Client

RESULTS = results.FOLDER / "uploads.json"
SIZE_BYTES = 2**30
BLOCK_BYTES = 2**20
CUTS = 3
ROUNDS = 3
MEMORY_GOAL_BYTES = 64 * 2**20
SPEED_GOAL = 0.5
SEED = 5


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("ESPALIER_BENCHMARK_DIR"), prefix="espalier-") as name:
        folder = Path(name)
        file = folder / "large.onnx"
        digest = write_model(file)
        environment = {"ESPALIER_DATA_DIR": str(folder / "data"), "ESPALIER_REDIS_URL": "redis://127.0.0.1:1/0"}
        with running_service.api(environment, folder) as (process, url):
            warm_up(url, folder)
            tus = measure_tus(url, file, digest, process.pid, folder)
            raw = measure_raw(url, file, digest, process.pid, folder)
    arrived = f"{tus['cuts']} cuts, {'right' if tus['right'] else 'wrong'}"
    claims = [
        results.Claim(
            f"1 GiB over tus, cut off {CUTS} times at random, arrives with the right SHA-256",
            issue=5,
            value=f"{arrived}, {tus['sent_twice_bytes'] / 2**20:.1f} MiB sent twice",
            goal=f"{CUTS} cuts, right",
            holds=tus["right"] and tus["cuts"] == CUTS,
        ),
        results.Claim(
            "memory that the API takes more at its peak while 1 GiB comes in",
            issue=5,
            value=f"{max(tus['growth_bytes'], raw['growth_bytes']) / 1e6:.1f} MB",
            goal="< 64 MB",
            holds=max(tus["growth_bytes"], raw["growth_bytes"]) < MEMORY_GOAL_BYTES,
        ),
        results.Claim(
            "speed of a raw PUT, relative to writing and flushing the same bytes beside it",
            issue=5,
            value=f"{raw['relative_speed']:.2f} ({raw['put_mb_per_s']:.0f} of {raw['disk_mb_per_s']:.0f} MB/s)",
            goal=f">= {SPEED_GOAL}",
            holds=raw["relative_speed"] >= SPEED_GOAL,
        ),
    ]
    described = machine.describe("httpx", "uvicorn", "starlette", "obstore")
    results.write(RESULTS, {"machine": described, "size_bytes": SIZE_BYTES, "tus": tus, "raw_put": raw}, claims)
    for claim in claims:
        print(f"{claim.name}: {claim.value} (goal {claim.goal})")


def write_model(path: Path) -> str:
    """A file of SIZE_BYTES that frames like an ONNX model: an IR version, and a graph of random bytes. Its SHA-256."""
    head_bytes = 8
    graph_bytes = SIZE_BYTES - head_bytes
    length = bytes((graph_bytes >> shift & 0x7F) | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7))
    head = bytes([0x08, 10, 7 << 3 | 2]) + length
    assert len(head) == head_bytes
    digest = hashlib.sha256(head)
    with path.open("wb") as file:
        file.write(head)
        for start in range(0, graph_bytes, BLOCK_BYTES):
            block = os.urandom(min(BLOCK_BYTES, graph_bytes - start))
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def warm_up(url: str, folder: Path) -> None:
    """So that everything is imported before memory is counted."""
    small = folder / "small.onnx"
    with (folder / "large.onnx").open("rb") as file:
        head = file.read(3)
    small.write_bytes(head + bytes([100]) + bytes(100))
    with Client(url, state=folder / "state") as client:
        client.upload_model(small)


def measure_tus(url: str, file: Path, digest: str, pid: int, folder: Path) -> dict[str, Any]:
    """The Python client through a relay that breaks its connections at random places."""
    places = sorted(random.Random(SEED).sample(range(SIZE_BYTES // 20, SIZE_BYTES * 19 // 20), CUTS))  # noqa: S311
    stretches = [place - before for before, place in zip([0, *places], places, strict=False)]
    relay = CuttingRelay(url, stretches)
    before = memory.start_peak(pid)
    began = time.perf_counter()
    with Client(relay.url, state=folder / "state") as client:
        upload = client.upload_model(file)
    seconds = time.perf_counter() - began
    growth = memory.peak(pid) - before
    relay.close()
    return {
        "cuts": relay.made,
        "cut_after_bytes": places,
        "right": upload.sha256 == digest and upload.size_bytes == SIZE_BYTES,
        "sent_twice_bytes": relay.passed_bytes - SIZE_BYTES,
        "seconds": seconds,
        "growth_bytes": growth,
    }


def measure_raw(url: str, file: Path, digest: str, pid: int, folder: Path) -> dict[str, Any]:
    """One PUT after the other, each beside a plain write of the same bytes."""
    disk, put, growth = [], [], []
    stored = folder / "data" / "blobs" / "sha256" / digest[:2] / digest
    for _ in range(ROUNDS):
        stored.unlink(missing_ok=True)  # so that it is written anew
        disk.append(write_plainly(file, folder / "data" / "beside"))
        before = memory.start_peak(pid)
        began = time.perf_counter()
        with file.open("rb") as content, httpx.Client(base_url=url, timeout=600) as http:
            blocks = iter(lambda: content.read(BLOCK_BYTES), b"")
            response = http.put("/v1/models/large", content=blocks, headers={"Content-Length": str(SIZE_BYTES)})
        put.append(time.perf_counter() - began)
        growth.append(memory.peak(pid) - before)
        assert response.status_code == 201, response.text
        assert response.json()["sha256"] == digest
    return {
        "disk_seconds": disk,
        "put_seconds": put,
        "disk_mb_per_s": SIZE_BYTES / 1e6 / statistics.median(disk),
        "put_mb_per_s": SIZE_BYTES / 1e6 / statistics.median(put),
        "relative_speed": statistics.median(d / p for d, p in zip(disk, put, strict=True)),
        "growth_bytes": max(growth),
    }


def write_plainly(source: Path, target: Path) -> float:
    """Seconds to write the bytes of `source` to `target`, flushed to the disk."""
    began = time.perf_counter()
    with source.open("rb") as content, target.open("wb") as file:
        while block := content.read(BLOCK_BYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


if __name__ == "__main__":
    main()
