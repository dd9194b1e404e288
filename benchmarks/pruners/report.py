"""How a pruner's process times itself and hands its result to the one that started it."""

import json
import time
from types import TracebackType
from typing import Any, Self

MARK = "result: "
"""Libraries print what they like; the line that starts with this is the result."""


class Stopwatch:
    """Seconds that a block took, by the clock and of this process's processor time."""

    seconds = 0.0
    cpu_seconds = 0.0

    def __enter__(self) -> Self:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = round(time.perf_counter() - self._start, 4)
        self.cpu_seconds = round(time.process_time() - self._cpu_start, 4)


def say(result: dict[str, Any]) -> None:
    print(MARK + json.dumps(result), flush=True)


def heard(output: str) -> dict[str, Any] | None:
    """The result in a process's output; None where it printed none."""
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if not lines:
        return None
    result: dict[str, Any] = json.loads(lines[-1].removeprefix(MARK))
    return result
