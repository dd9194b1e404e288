"""The registry of mask layouts, and the one entry point `mask_of`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.engine.errors import EngineError

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MaskOptions:
    """`sparsity` is the share that goes; `patterns` bounds the library of the layout `pattern`."""

    sparsity: float
    patterns: int = 8


Layout = Callable[[Floats, MaskOptions], Mask | str]
"""(importance (outputs, inputs, height, width, ...), options) -> the weights that stay, or why none can go."""

LAYOUTS: dict[str, Layout] = {}


def layout(name: str) -> Callable[[Layout], Layout]:
    """Register a layout under the name that jobs use."""

    def register(function: Layout) -> Layout:
        LAYOUTS[name] = function
        return function

    return register


def mask_of(name: str, importance: Floats, options: MaskOptions) -> Mask | str:
    """The weights of one convolution that stay, True, in the shape of its weight; or the reason why all do.

    Raises EngineError for an unknown name.
    """
    if name not in LAYOUTS:
        raise EngineError(
            "unknown_layout", f"There is no mask layout '{name}'.", f"Choose one of: {', '.join(sorted(LAYOUTS))}."
        )
    return LAYOUTS[name](importance, options)


def best(scores: Floats, count: int) -> Mask:
    """True at the `count` largest of the last axis, the first of equals."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen
