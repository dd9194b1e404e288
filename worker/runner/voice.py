"""What the child tells its supervisor: messages through the pipe that it was given."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from models_store.documents.job import StageState
from worker.messages import LogMessage, Message, MetricMessage, ProgressMessage, StageMessage

_MIN_INTERVAL_S = 0.5


class Voice:
    """Speaks on one file descriptor and remembers which stage it is in."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._progress_said_at = -math.inf
        self.current_stage: str | None = None
        self.stage_seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage, from `running` to `done`; a stage that raises stays `running` for the supervisor to fail."""
        self.current_stage = name
        self._say(StageMessage(name=name, state=StageState.RUNNING))
        started = time.perf_counter()
        yield
        self.stage_seconds[name] = time.perf_counter() - started
        self._say(StageMessage(name=name, state=StageState.DONE))
        self.current_stage = None

    def skip(self, name: str, reason: str) -> None:
        self._say(StageMessage(name=name, state=StageState.SKIPPED, message=reason))

    def progress(self, share: float, eta_s: float | None = None) -> None:
        """How far the current stage is, 0..1; said at most twice a second."""
        now = time.monotonic()
        if self.current_stage is None or now - self._progress_said_at < _MIN_INTERVAL_S:
            return
        self._progress_said_at = now
        share = min(max(share, 0.0), 1.0)
        self._say(ProgressMessage(stage=self.current_stage, progress=share, eta_s=eta_s))

    def metric(self, values: Mapping[str, float]) -> None:
        """Figures of one step of the current stage; those that are not finite are left out."""
        if self.current_stage is not None:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._say(MetricMessage(stage=self.current_stage, values=finite))

    def log(self, message: str, level: Literal["info", "warning", "error"] = "info") -> None:
        self._say(LogMessage(level=level, message=message[:10_000]))

    def _say(self, message: Message) -> None:
        line = message.model_dump_json().encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]
