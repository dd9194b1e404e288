"""How far a converted model's outputs are from those of the model that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from worker.engine.measure.session import cpu_session


@dataclass(frozen=True)
class Agreement:
    """max_relative_error: the largest over outputs and inputs of max|a - b| / max|a|. Infinite where shapes differ or
    one side is not finite."""

    max_relative_error: float
    compared: int


def agreement(
    reference: onnx.ModelProto | Path, converted: onnx.ModelProto | Path, inputs: Sequence[Mapping[str, np.ndarray]]
) -> Agreement:
    """Run both models in ONNX Runtime on the inputs, each in the types that it declares. Raises EngineError where one
    of them does not load."""
    sessions = [cpu_session(reference), cpu_session(converted)]
    worst, compared = 0.0, 0
    for feed in inputs:
        outputs = []
        for session in sessions:
            types = {value.name: value.type for value in session.get_inputs()}
            outputs.append(session.run(None, {name: _as(types[name], value) for name, value in feed.items()}))
        for a, b in zip(*outputs, strict=True):
            worst, compared = max(worst, _error(np.asarray(a), np.asarray(b))), compared + 1
    return Agreement(worst, compared)


def _as(declared: str, value: np.ndarray) -> np.ndarray:
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    return value.astype(types[declared]) if declared in types else value


def _error(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return float("inf")
    if not a.size:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    difference = float(np.abs(a - b).max())
    if not np.isfinite(difference):
        return float("inf")
    return difference / max(float(np.abs(a).max()), float(np.finfo(np.float32).tiny))
