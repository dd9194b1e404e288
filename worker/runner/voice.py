"""What the child tells its supervisor: messages through the pipe that it was given."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from models_store.documents.job import StageState
from worker.messages import CheckpointMessage, LogMessage, Message, MetricMessage, ProgressMessage, StageMessage

_MIN_INTERVAL_S = 0.5
_MAX_INTERVAL_S = 10
_MIN_STEP = 0.01


class Voice:
    """Speaks on one file descriptor and remembers which stage it is in."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.stage_seconds: dict[str, float] = {}
        self.current_stage: str | None = None
        self._began_at = self._said_at = time.monotonic()
        self._said = 0.0
        self._low, self._high = 0.0, 1.0

    @contextmanager
    def share(self, low: float, high: float) -> Iterator[None]:
        """In this block 0..1 of progress is `low`..`high` of what it was around it."""
        before = self._low, self._high
        whole = self._high - self._low
        self._low, self._high = before[0] + low * whole, before[0] + high * whole
        try:
            yield
        finally:
            self._low, self._high = before

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage, from `running` to `done`; a stage that raises stays `running` for the supervisor to fail."""
        self.current_stage = name
        self._began_at = self._said_at = time.monotonic()
        self._said = 0.0
        self._say(StageMessage(name=name, state=StageState.RUNNING))
        yield
        self.stage_seconds = self.seconds_so_far()
        self._say(StageMessage(name=name, state=StageState.DONE))
        self.current_stage = None

    def seconds_so_far(self) -> dict[str, float]:
        """By stage, those of earlier attempts included."""
        if self.current_stage is None:
            return self.stage_seconds
        spent = self.stage_seconds.get(self.current_stage, 0.0) + time.monotonic() - self._began_at
        return {**self.stage_seconds, self.current_stage: spent}

    def keep(self, name: str) -> None:
        """A stage that need not run: an earlier attempt finished it."""
        self._say(StageMessage(name=name, state=StageState.DONE, message="Kept from an earlier attempt."))

    def skip(self, name: str, reason: str) -> None:
        self._say(StageMessage(name=name, state=StageState.SKIPPED, message=reason))

    def progress(self, share: float) -> None:
        """How far the current stage is, 0..1. Said for each percent, but not too often, and now and then in between."""
        now = time.monotonic()
        if self.current_stage is None:
            return
        share = self._low + share * (self._high - self._low)
        silent_s, step = now - self._said_at, share - self._said
        if silent_s < _MIN_INTERVAL_S or (silent_s < _MAX_INTERVAL_S and step < _MIN_STEP):
            return
        self._said_at, self._said = now, share
        eta_s = (now - self._began_at) * (1 - share) / share if share > 0 else None
        self._say(ProgressMessage(stage=self.current_stage, progress=share, eta_s=eta_s))

    def metric(self, values: Mapping[str, float]) -> None:
        """Figures of one step of the current stage; those that are not finite are left out."""
        if self.current_stage is not None:
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._say(MetricMessage(stage=self.current_stage, values=finite))

    def log(self, message: str, level: Literal["info", "warning", "error"] = "info") -> None:
        self._say(LogMessage(level=level, message=message[:10_000]))

    def checkpoint(self, files: Mapping[str, str]) -> None:
        """Another attempt can go on from these files: digests by path in the work folder."""
        self._say(CheckpointMessage(files=dict(files)))

    def _say(self, message: Message) -> None:
        line = message.model_dump_json().encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]
