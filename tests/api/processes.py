"""The API as a process of its own, by its command."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.redis_server import free_port
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]


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
            until(lambda: process.poll() is not None or _listens(port), 120, "the API")
            assert process.poll() is None, "the API did not start"
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=20)


def peak_memory_kib(pid: int) -> int:
    """The most memory that a process has ever had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return int(peak[1])


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0
