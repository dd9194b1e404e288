"""Latency of two models, run in turn in one process so that what disturbs one disturbs the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime

from worker.engine.graph import OnnxGraph, sample_inputs
from worker.engine.graph.inputs import single_samples
from worker.engine.graph.runtime import RUNTIME_ERRORS
from worker.engine.measure.batch_size import does_not_run
from worker.engine.measure.session import cpu_session

WARM_UP_RUNS = 5
WARM_UP_SECONDS = 0.3
TURN_SECONDS = 0.01  # a turn repeats runs shorter than this, so that one context switch does not decide a round
MAX_RUNS_PER_TURN = 100


@dataclass(frozen=True)
class Percentiles:
    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Latency:
    """Single runs of both models. Speed-ups are original / pruned per round: the median, the 10th and 90th percentile.
    `noise` is half the 10-90 % spread of the original's times, relative to their median."""

    batch_size: int
    threads: int
    rounds: int
    original: Percentiles
    pruned: Percentiles
    speedup: float
    speedup_low: float
    speedup_high: float
    noise: float


def latency(
    original: onnx.ModelProto,
    pruned: onnx.ModelProto,
    batch_sizes: tuple[int, ...] = (1,),
    threads: int = 1,
    rounds: int = 30,
    seed: int = 0,
    on_progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[Latency, ...]:
    """Time both models, A-B-B-A, once per batch size that the original can take (a fixed batch size stays fixed).
    Raises EngineError where they do not run at one."""
    sessions = cpu_session(original, threads, timed=True), cpu_session(pruned, threads, timed=True)
    single = single_samples(OnnxGraph(original))
    rows: dict[int, Latency] = {}
    for done, batch_size in enumerate(batch_sizes):
        inputs = sample_inputs(original, seed, batch_size)
        actual = next((len(value) for name, value in inputs.items() if value.ndim and name not in single), 1)
        if actual not in rows:
            try:
                times = _take_turns(sessions, inputs, rounds)
            except RUNTIME_ERRORS as error:
                raise does_not_run(actual, error) from error
            rows[actual] = summary(actual, threads, *times)
        on_progress((done + 1) / len(batch_sizes))
    return tuple(rows.values())


def _take_turns(
    sessions: tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession],
    inputs: Mapping[str, np.ndarray],
    rounds: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each run, (rounds, runs per turn), of either model."""
    runs = [math.ceil(TURN_SECONDS / _warm_up(session, inputs)) for session in sessions]
    count = min(max(runs), MAX_RUNS_PER_TURN)
    times = np.empty((2, rounds, count))
    for turn in range(rounds):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            times[which, turn] = [_seconds(sessions[which], inputs) for _ in range(count)]
    return times[0], times[1]


def _warm_up(session: onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray]) -> float:
    """Run until caches and memory pools are settled; the median of a run in seconds."""
    times: list[float] = []
    while len(times) < WARM_UP_RUNS or sum(times) < WARM_UP_SECONDS:
        times.append(_seconds(session, inputs))
    return float(np.median(times))


def _seconds(session: onnxruntime.InferenceSession, inputs: Mapping[str, np.ndarray]) -> float:
    start = time.perf_counter()
    session.run(None, inputs)
    return time.perf_counter() - start


def summary(batch_size: int, threads: int, original: np.ndarray, pruned: np.ndarray) -> Latency:
    """The row for seconds of single runs, (rounds, runs per turn), of either model."""
    ratios = np.median(original, axis=1) / np.median(pruned, axis=1)
    low, median, high = np.percentile(original, (10, 50, 90))
    return Latency(
        batch_size=batch_size,
        threads=threads,
        rounds=len(original),
        original=_percentiles(original),
        pruned=_percentiles(pruned),
        speedup=float(np.median(ratios)),
        speedup_low=float(np.percentile(ratios, 10)),
        speedup_high=float(np.percentile(ratios, 90)),
        noise=float((high - low) / 2 / median),
    )


def _percentiles(times: np.ndarray) -> Percentiles:
    p50, p90, p99 = np.percentile(times * 1000, (50, 90, 99))
    return Percentiles(float(p50), float(p90), float(p99))
