"""One child process: started in a group of its own, listened to, stopped."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
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
_MAX_MESSAGES = 50_000
_PIPE_BYTES = 64 * 2**10


class Child:
    """`python -m worker.runner <folder>` from its start to the end of the block, when all of its group is gone.

    `order_for` completes the order with the descriptor that messages are to be written to.
    """

    def __init__(self, folder: WorkFolder, order_for: Callable[[int], Order], environment: Mapping[str, str]) -> None:
        self._unread = b""
        self._silent = False
        self._heard = 0
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            folder.order.write_text(order_for(write_end).model_dump_json())
            with folder.output.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603  our own interpreter and module
                    [sys.executable, "-P", "-m", "worker.runner", str(folder.root)],
                    cwd=folder.tmp,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(write_end,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        os.close(self._pipe)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -n where signal n ended it."""
        return self._process.poll()

    def listen(self, timeout_s: float) -> list[Message]:
        """What it has said, waiting for the first words for at most `timeout_s`. Nonsense is passed over."""
        if self._silent:
            self._wait(timeout_s)
        elif select.select([self._pipe], [], [], timeout_s)[0]:
            self._read()
        *lines, self._unread = self._unread.split(b"\n")
        self._unread = self._unread[:_MAX_LINE_BYTES]
        return [message for line in lines if (message := self._understand(line)) is not None]

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the group, SIGKILL after `grace_s`; returns when the child is gone."""
        if self.exit_code is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._wait(grace_s)
        self._kill()

    def _kill(self) -> None:
        """End whatever is left of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _wait(self, timeout_s: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def _read(self) -> None:
        data = os.read(self._pipe, _PIPE_BYTES)
        self._silent = not data
        self._unread += data

    def _understand(self, line: bytes) -> Message | None:
        self._heard += 1
        if self._heard > _MAX_MESSAGES or len(line) > _MAX_LINE_BYTES:
            return None
        try:
            return MESSAGE.validate_json(line)
        except ValidationError as error:
            logger.warning("the child of process group %s talks nonsense: %s", self._process.pid, error)
            return None
