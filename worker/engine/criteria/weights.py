"""The filters of a source as rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from worker.engine.criteria.width import Floats, Width
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.onnx_graph import ints_attribute
from worker.engine.graph.propagation import Source

_SAME_AXES = ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Transpose")


def filters(analysis: Analysis, source: Source) -> Floats | None:
    """(channels, weights per channel) of the source's weight; None where the weight is computed by a chain that hides
    which constant it comes from."""
    located = constant_axis(analysis, source)
    if located is None:
        return None
    name, axis = located
    weight = np.moveaxis(analysis.graph.array(name).astype(np.float64), axis, 0)
    return weight.reshape(weight.shape[0], -1)


def constant_axis(analysis: Analysis, source: Source) -> tuple[str, int] | None:
    """The constant behind a weight (perhaps through Transpose, Cast, DequantizeLinear) and its axis of filters."""
    name, axis = source.weight, source.axis
    followed = True  # a matrix between tensors that are added has the same labels on both axes
    while name not in analysis.graph.constants:
        if name not in analysis.graph.producer:
            return None
        node = analysis.graph.nodes[analysis.graph.producer[name]]
        if node.op_type == "Transpose":
            order = ints_attribute(node, "perm")
            axis = order[axis] if order else len(analysis.graph.shape(name)) - 1 - axis
        followed = followed and node.op_type in _SAME_AXES
        name = node.input[0]
    if followed:
        return name, axis
    wanted = analysis.roots[source.labels]
    for slot in analysis.propagation.slots:
        if slot[0] == name:
            for axis, labels in enumerate(analysis.propagation.slot_dims(slot)):
                if labels is not None and np.array_equal(analysis.roots[labels], wanted):
                    return name, axis
    return None


def rows_per_source(width: Width, measure: Callable[[Floats], Floats], *, relative: bool = True) -> list[Floats]:
    """One row per coupled weight: `measure` of its filters, (channels, weights) -> (channels,), per unit.

    Layers of different fan-in have different scales: `relative` divides each row's values by their mean first.
    """
    rows = []
    for source in width.sources:
        weight = filters(width.analysis, source)
        if weight is not None:
            values = measure(weight)
            scale = max(float(values.mean()), 1e-12) if relative else 1.0
            rows.append(width.per_unit(source.labels, values / scale))
    return rows
