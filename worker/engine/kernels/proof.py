"""The proof of a grouped layout: it computes what the dense network does with the removed kernels set to zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from worker.engine.graph import analyze
from worker.engine.graph.onnx_graph import Array
from worker.engine.kernels.grouped import Grouped
from worker.engine.kernels.order import ChannelOrder
from worker.engine.proof import Proof, compare


def prove_layout(
    model: onnx.ModelProto,
    grouped: Grouped,
    *,
    seed: int = 0,
    tolerance: float = 1e-4,
    real_inputs: Sequence[dict[str, Array]] = (),
) -> Proof:
    """Compare outputs and what every layer computes, channels in their new order, on random inputs of two sizes (where
    axes are dynamic) and on `real_inputs`. The masked model is made from the masks alone, with none of the rewriting.
    """
    analysis = analyze(model)
    places = ChannelOrder(analysis)

    def in_new_order(name: str, value: Array) -> Array | None:
        for axis, labels in enumerate(analysis.propagation.tensors.get(name, [])):
            indices = places.indices(labels, grouped.orders)
            if indices is not None:
                if len(indices) != value.shape[axis]:
                    return None
                value = np.take(value, indices, axis=axis)
        return value

    masks = {layer.target.weight: layer.mask for layer in grouped.layers}
    return compare(
        analysis,
        masked(analysis.graph.model, masks),
        grouped.model,
        in_new_order,
        seed=seed,
        tolerance=tolerance,
        real_inputs=real_inputs,
    )


def masked(model: onnx.ModelProto, masks: dict[str, Array]) -> onnx.ModelProto:
    """A copy of the model with zeros where the masks are False; a mask may have only the weight's first dims."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in masks:
            value = numpy_helper.to_array(tensor)
            mask = masks[tensor.name]
            mask = mask.reshape(*mask.shape, *[1] * (value.ndim - mask.ndim))
            zero = np.zeros((), value.dtype)
            tensor.CopyFrom(numpy_helper.from_array(np.where(mask, value, zero), tensor.name))
    return copy
