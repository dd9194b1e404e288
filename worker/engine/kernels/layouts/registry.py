"""The registry of granularities below whole channels, and the one entry point `mask_of` for those that are masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.engine.methods import Options, Registry

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class KernelOptions(Options):
    """What all granularities below channels have in common: fields of a job's `kernels`."""

    sparsity: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Share of the kernels (or of the weights in a kernel) that goes in every convolution.",
    )
    criterion: Literal["l1", "l2"] = Field(default="l2", description="Importance of a kernel or weight.")


GRANULARITIES: Registry[Callable[..., Any]] = Registry("granularity", asked_for_by="kernels.layout")
"""Masks: (importance (outputs, inputs, height, width, ...), options) -> the weights that stay, or why none can go.
Those that rewrite the graph take the model instead."""


def mask_of(name: str, importance: Floats, options: KernelOptions) -> Mask | str:
    """The weights of one convolution that stay, True, in the shape of its weight; or the reason why all do.

    Raises EngineError for an unknown name, or for options that the granularity does not have.
    """
    method = GRANULARITIES.find(name)
    known = {option: value for option, value in options if option in method.options.model_fields}
    mask: Mask | str = method.function(importance, method.read_options(known))
    return mask


def best(scores: Floats, count: int) -> Mask:
    """True at the `count` largest of the last axis, the first of equals."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen
