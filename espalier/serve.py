"""The whole service on one machine: API, workers, sweeper, courier and Redis over one data folder."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import httpx

from espalier.embedded_redis import EmbeddedRedis
from espalier.errors import EspalierError
from espalier.processes import Process

START_TIMEOUT_S = 240.0  # a machine may be busy with other things; a part that fails is noticed at once
DRAIN_S = 25.0  # a worker gives its jobs 20 s to leave a checkpoint behind
MAX_FAILURES = 3
FAILURES_COUNT_FOR_S = 60.0


class AlreadyServed(EspalierError):
    """Another service has this data folder."""

    def __init__(self, folder: Path, owner: str) -> None:
        super().__init__(
            "already_served",
            f"{folder} is in use by process {owner or '(unknown)'}",
            "Stop that one, or choose another folder with --data-dir.",
        )


class AddressTaken(EspalierError):
    """The service cannot listen there."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(
            "address_taken",
            f"cannot listen on {host}:{port}: {reason}",
            "Choose another one with --port (0 takes a free one) or --host.",
        )


class ChildEnded(EspalierError):
    """A part of the service ended and could not be kept running."""

    def __init__(self, process: Process) -> None:
        super().__init__(
            "child_ended",
            f"{process.name} ended with {process.exit_code}; its log ends with:\n{process.last_words()}",
            f"The whole log is {process.log}.",
        )


class NotReady(EspalierError):
    """The service did not come up in time."""

    def __init__(self, what: str, log: Path) -> None:
        super().__init__("not_ready", f"{what} is not ready after {START_TIMEOUT_S:.0f} s", f"Its log is {log}.")


class Service:
    """The service for the length of a `with` block, which begins when it is ready and ends when every child is gone.

    Raises AlreadyServed, AddressTaken, ChildEnded, NotReady, RedisMissing.
    """

    def __init__(
        self,
        data_dir: Path,
        host: str = "127.0.0.1",
        port: int = 8000,
        jobs: int = 2,
        settings: Mapping[str, str] = os.environ,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self._settings = settings
        self.host = host
        self.jobs = jobs
        self.url = ""
        self.keyed = False
        """Whether requests need an API key."""
        self.first_key: str | None = None
        """Made where requests need a key and nobody has one."""
        self._port = port
        self._children: list[Process] = []
        self._failures: list[float] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(_folder_lock(self.data_dir))
            listener = opening.enter_context(_listen(self.host, self._port))
            self.url = _url(self.host, listener.getsockname()[1])
            opening.callback(self._stop_all)
            self._start(listener)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def watch(self, say: Callable[[str], None]) -> NoReturn:
        """Keep the children running, until interrupted. Raises ChildEnded if they end again and again."""
        while True:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # returns when a child has ended
            for child in self._children:
                if child.exit_code is not None:
                    self._revive(child, say)

    def _revive(self, child: Process, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        self._failures = [*(at for at in self._failures if now - at < FAILURES_COUNT_FOR_S), now]
        if len(self._failures) > MAX_FAILURES:
            raise ChildEnded(child)
        say(f"{child.name} ended with {child.exit_code} and is started again; its log is {child.log}")
        child.start()

    def _start(self, listener: socket.socket) -> None:
        logs = self.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        environment = {**self._settings, "PYTHONUNBUFFERED": "1"}
        environment |= {"ESPALIER_DATA_DIR": str(self.data_dir), "ESPALIER_HOST": self.host}

        def run(name: str, *arguments: str, fds: tuple[int, ...] = ()) -> Process:
            command = [sys.executable, "-P", "-m", *arguments]  # -P: modules never come from the current folder
            child = Process(name, command, logs / f"{name}.log", environment, pass_fds=fds)
            child.start()
            return child

        if "ESPALIER_REDIS_URL" not in environment:
            redis = EmbeddedRedis(self.data_dir, logs / "redis.log", environment)
            redis.process.start()
            self._children.append(redis.process)
            _await("Redis", redis.process, redis.answers)
            environment["ESPALIER_REDIS_URL"] = redis.url
        self._migrate(run("migrations", "models_store.migrate"))
        fd = listener.fileno()
        api = run("api", "app", "--fd", str(fd), fds=(fd,))
        self._children.append(api)
        _await("the API", api, lambda: _is_ready(self.url))  # before the others, which would only slow its start
        self.keyed = httpx.get(f"{self.url}/readyz", timeout=5).json()["auth"] == "required"
        if self.keyed:
            self.first_key = _first_key(environment)
        self._children.append(run("worker", "worker", "--concurrency", str(self.jobs)))
        self._children.append(run("sweeper", "worker.sweeper"))
        self._children.append(run("courier", "worker.courier"))

    def _migrate(self, migration: Process) -> None:
        migration.end(by=time.monotonic() + START_TIMEOUT_S)
        if migration.exit_code != 0:
            raise ChildEnded(migration)

    def _stop_all(self) -> None:
        """Ask all but Redis at once to end, and Redis when nobody needs it any more."""
        deadline = time.monotonic() + DRAIN_S
        others = [child for child in self._children if child.name != "redis"]
        for child in others:
            child.terminate()
        for child in others:
            child.end(by=deadline)
        for child in self._children:
            child.terminate()
            child.end(by=time.monotonic() + 2.0)
        self._children.clear()


def _first_key(environment: Mapping[str, str]) -> str | None:
    """A key for whoever started the service, if there is none yet; it goes to no log."""
    command = [sys.executable, "-P", "-m", "models_store.first_key", "--if-none", "--name", "made at the first start"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603  ours
    if made.returncode != 0:
        raise EspalierError("no_first_key", f"the first API key could not be made: {made.stderr.strip()}", "")
    return str(json.loads(made.stdout)["key"]) if made.stdout else None


def _await(what: str, process: Process, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.exit_code is not None:
            raise ChildEnded(process)
        if time.monotonic() > deadline:
            raise NotReady(what, process.log)
        time.sleep(0.05)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """The data folder to ourselves; the lock goes with this process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "serve.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise AlreadyServed(folder, lock.read().strip()) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _listen(host: str, port: int) -> socket.socket:
    """The API's socket. Opened here, it stays open, and its port ours, while the API is started again."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise AddressTaken(host, port, error.strerror or str(error)) from error


def _url(host: str, port: int) -> str:
    """Where a browser on this machine finds it."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
