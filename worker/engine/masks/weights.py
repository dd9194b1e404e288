"""Which weights of a model a mask leaves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Masks = Mapping[str, npt.NDArray[np.bool_]]
"""Name of a stored weight -> the weights that stay, True, in its shape."""


def broken_masks(model: onnx.ModelProto, masks: Masks) -> tuple[str, ...]:
    """The weights of a model that are not exactly zero where their masks say so."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return tuple(
        name for name, mask in masks.items() if name not in stored or numpy_helper.to_array(stored[name])[~mask].any()
    )
