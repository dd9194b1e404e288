"""Child processes that end with this one, however it ends, and whose last words are kept in a log file."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

MAX_LOG_BYTES = 16 << 20


class Process:
    """A program and its log; `start` may be called again once it has ended."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        pass_fds: Sequence[int] = (),
        standard_input: bytes = b"",
    ) -> None:
        self.name = name
        self.log = log
        self.started_at = 0.0
        self._command = list(command)
        self._environment = dict(environment)
        self._pass_fds = tuple(pass_fds)
        self._standard_input = standard_input
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it in a session of its own: Ctrl-C in a terminal reaches this process only, which then decides."""
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        parent = os.getpid()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter, modules and binaries
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self._pass_fds,
                start_new_session=True,
                preexec_fn=lambda: _die_with(parent),
            )
        assert self._process.stdin is not None  # noqa: S101  stdin=PIPE
        with suppress(BrokenPipeError), self._process.stdin as pipe:
            pipe.write(self._standard_input)
        self.started_at = time.monotonic()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -n where signal n ended it."""
        return self._process.poll() if self._process else None

    def terminate(self) -> None:
        """Ask it to end."""
        if self._process is not None and self.exit_code is None:
            self._process.terminate()

    def end(self, by: float) -> None:
        """Return when it has ended: by itself until the time `by` (of time.monotonic), else killed with its group."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, by - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 16_384))
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])


def _die_with(parent: int) -> None:
    """In the child, between fork and exec: be killed when the parent dies, which may already have happened."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
