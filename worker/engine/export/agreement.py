"""How far a converted model's outputs are from those of the model that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from worker.engine.errors import EngineError
from worker.engine.graph.onnx_graph import OnnxGraph
from worker.engine.graph.reading import load_model
from worker.engine.graph.runtime import RUNTIME_ERRORS
from worker.engine.graph.saturation import saturated
from worker.engine.measure.session import cpu_session


@dataclass(frozen=True)
class Agreement:
    """max_relative_error: the largest over outputs and inputs of max|a - b| / max|a|. Infinite where shapes differ or
    one side is not finite. What stands behind a sigmoid is compared relative to one: a difference of logits is a factor
    where probabilities are near zero. What went into the sigmoid is compared besides."""

    max_relative_error: float
    compared: int


def agreement(
    reference: onnx.ModelProto | Path, converted: onnx.ModelProto | Path, inputs: Sequence[Mapping[str, np.ndarray]]
) -> Agreement:
    """Run both models in ONNX Runtime on the inputs, each in the types that it declares. Raises EngineError where one
    of them does not load or run."""
    models = [load_model(model) if isinstance(model, Path) else _copy(model) for model in (reference, converted)]
    outputs = [value.name for value in models[0].graph.output]
    saturating, causes = _saturating(*models)
    for model in models:
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in causes)
    scales = [1.0 if name in saturating else 0.0 for name in (*outputs, *causes)]
    sessions = [cpu_session(model) for model in models]
    worst, compared = 0.0, 0
    for feed in inputs:
        results = [_run(session, feed) for session in sessions]
        for a, b, scale in zip(*results, scales, strict=True):
            worst = max(worst, _error(np.asarray(a), np.asarray(b), scale))
        compared += len(outputs)
    return Agreement(worst, compared)


def _run(session: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    types = {value.name: value.type for value in session.get_inputs()}
    try:
        found: list[np.ndarray] = session.run(None, {name: _as(types[name], value) for name, value in feed.items()})
    except RUNTIME_ERRORS as error:
        raise EngineError(
            "not_runnable", f"ONNX Runtime cannot run the model: {str(error)[:1000]}", "Use the float32 model."
        ) from error
    return found


def _saturating(reference: onnx.ModelProto, converted: onnx.ModelProto) -> tuple[set[str], list[str]]:
    """The outputs behind sigmoids, and what goes into these and is no output itself, where both models have it."""
    declared = {value.name for value in reference.graph.output}
    made = {name for node in converted.graph.node for name in node.output}
    behind = {name: causes for name, causes in saturated(OnnxGraph(reference)).items() if causes <= made}
    outputs = declared & set(behind)
    return outputs, sorted(set().union(*(behind[name] for name in outputs)) - declared)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _as(declared: str, value: np.ndarray) -> np.ndarray:
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    return value.astype(types[declared]) if declared in types else value


def _error(a: np.ndarray, b: np.ndarray, scale: float) -> float:
    if a.shape != b.shape:
        return float("inf")
    if not a.size:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    difference = float(np.abs(a - b).max())
    if not np.isfinite(difference):
        return float("inf")
    return difference / max(float(np.abs(a).max()), scale, float(np.finfo(np.float32).tiny))
