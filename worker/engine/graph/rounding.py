"""How much of a difference between two graphs that should be equal is rounding.

Saturated sigmoids, clipped and badly scaled activations, variances taken as differences of large numbers: such graphs
make much of the last bit. How much, the graph itself tells when its inputs are moved by their last bits.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from worker.engine.graph.onnx_graph import Array
from worker.engine.graph.saturation import ROUNDING

_ROOM = 4
"""Two graphs round at every node, and not the inputs alone."""
_MOST = 0.01
"""Rounding excuses no more, but behind a sigmoid, of which the input is compared."""
_DRAWS = 2


class Difference(NamedTuple):
    """Relative errors: the largest that rounding does not account for, and the largest that it does."""

    error: float
    excused: float


def judged(errors: Mapping[str, float], rounding: Mapping[str, float], tolerance: float) -> Difference:
    """Errors by the names of the tensors; each is excused that is beyond the tolerance and not beyond its rounding."""
    excused = {name for name, error in errors.items() if tolerance < error <= rounding.get(name, 0.0)}
    return Difference(
        max((error for name, error in errors.items() if name not in excused), default=0.0),
        max((errors[name] for name in excused), default=0.0),
    )


def measured_rounding(
    run: Callable[[dict[str, Array]], Mapping[str, Array]], inputs: dict[str, Array], saturated: Mapping[str, object]
) -> dict[str, float]:
    """Name of a tensor -> how far it may be off for rounding alone, relative to its largest value. `run` computes the
    tensors from inputs; `saturated` are those behind sigmoids."""
    reference = run(inputs)
    changes = {name: 0.0 for name, value in reference.items() if value.dtype.kind == "f" and _largest(value)}
    for seed in range(_DRAWS):
        moved = run(_nudged(inputs, seed))
        for name in changes:
            value, other = reference[name], moved[name]
            if value.shape == other.shape:
                changes[name] = max(changes[name], _ROOM * _largest(value.astype(np.float64) - other))
    return {
        name: max(change, ROUNDING) / _largest(reference[name])
        if name in saturated
        else min(change / _largest(reference[name]), _MOST)
        for name, change in changes.items()
    }


def _nudged(inputs: dict[str, Array], seed: int) -> dict[str, Array]:
    """Every floating-point number moved by one unit in its last place, up or down by lot."""
    rng = np.random.default_rng(seed)
    return {
        name: np.nextafter(value, np.where(rng.random(value.shape) < 0.5, -np.inf, np.inf).astype(value.dtype))
        if value.dtype.kind == "f"
        else value
        for name, value in inputs.items()
    }


def _largest(values: Array) -> float:
    return float(np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max(initial=0.0))
