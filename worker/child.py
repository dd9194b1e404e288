"""One child process: started in a group of its own, listened to, stopped."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from worker.messages import MESSAGE, Message
from worker.order import Order
from worker.work_folder import WorkFolder

logger = logging.getLogger(__name__)

_MAX_LINE_BYTES = 64 * 2**10
_PIPE_BYTES = 64 * 2**10
_LAST_READS = 100
_STDIN = 0
_DYING_S = 10
# What an honest child never exceeds, so that a talkative one cannot fill the database.
_MESSAGES_AT_ONCE = 2000
_MESSAGES_PER_S = 10


class Child:
    """`python -m worker.runner <folder>` from its start to the end of the block, when all of its group is gone; the
    launcher of several where the order says so, with all that it launched.

    `order_for` completes the order with the descriptor that messages are to be written to. `exit_code` is known after
    the block; -n where signal n ended the process.
    """

    exit_code: int

    def __init__(self, folder: WorkFolder, order_for: Callable[[int], Order], environment: Mapping[str, str]) -> None:
        self._unread = b""
        self._silent = False
        self._heard = 0
        self._started_at = time.monotonic()
        self._pipe, write_end = os.pipe()
        try:
            order = order_for(write_end)
            several = order.processes > 1
            if several:  # torchrun's processes inherit nothing beyond the standard streams
                order = order.model_copy(update={"events_fd": _STDIN})
            folder.order.write_text(order.model_dump_json())
            module = "worker.runner.launcher" if several else "worker.runner"
            with folder.output.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603  our own interpreter and module
                    [sys.executable, "-P", "-m", module, str(folder.root)],
                    cwd=folder.tmp,
                    env=dict(environment),
                    stdin=write_end if several else subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=() if several else (write_end,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        # Tells that the process has ended without reaping it: until then its number, and so that of its group, is its.
        self._end = os.pidfd_open(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal_group(signal.SIGKILL)
        self.exit_code = self._process.wait()
        self._outlive()
        os.close(self._end)
        os.close(self._pipe)

    @property
    def ended(self) -> bool:
        return self._wait(0)

    def listen(self, timeout_s: float) -> list[Message]:
        """What it has said, waiting for its first words or its end for at most `timeout_s`. Nonsense is passed over."""
        sources = [self._end] if self._silent else [self._pipe, self._end]
        if self._pipe in select.select(sources, [], [], timeout_s)[0]:
            data = os.read(self._pipe, _PIPE_BYTES)
            self._silent = not data
            self._unread += data
        *lines, self._unread = self._unread.split(b"\n")
        self._unread = self._unread[: _MAX_LINE_BYTES + 1]
        return [message for line in lines if (message := self._understand(line)) is not None]

    def last_words(self) -> list[Message]:
        """What it said before it ended; what is left of its group is ended first, so that nobody goes on talking."""
        self._signal_group(signal.SIGKILL)
        words: list[Message] = []
        for _ in range(_LAST_READS):
            if self._silent:
                break
            words += self.listen(0)
        return words

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the group, SIGKILL after `grace_s`; returns when the child has ended."""
        self._signal_group(signal.SIGTERM)
        if not self._wait(grace_s):
            self._signal_group(signal.SIGKILL)
            self._wait(None)

    def _outlive(self) -> None:
        """Wait until nobody can speak any more: what a launcher launched dies with it, but a moment later."""
        deadline = time.monotonic() + _DYING_S
        while not self._silent and time.monotonic() < deadline:
            if select.select([self._pipe], [], [], _DYING_S)[0]:
                self._silent = not os.read(self._pipe, _PIPE_BYTES)

    def _wait(self, timeout_s: float | None) -> bool:
        return bool(select.select([self._end], [], [], timeout_s)[0])

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _understand(self, line: bytes) -> Message | None:
        self._heard += 1
        allowed = _MESSAGES_AT_ONCE + _MESSAGES_PER_S * (time.monotonic() - self._started_at)
        if self._heard > allowed or len(line) > _MAX_LINE_BYTES:
            return None
        try:
            return MESSAGE.validate_json(line)
        except ValidationError:
            logger.warning("the child %s talks nonsense: %r", self._process.pid, line[:200])
            return None
