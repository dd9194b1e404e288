"""The filters of a source as rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from worker.engine.criteria.width import Floats, Width
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.constant_chains import constant_value
from worker.engine.graph.onnx_graph import ints_attribute
from worker.engine.graph.propagation import Source

_SAME_AXES = ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear")

_QUANTISED: dict[str, tuple[int, int | None, int | None]] = {
    "QLinearConv": (3, 4, 5),
    "QLinearMatMul": (3, 4, 5),
    "ConvInteger": (1, None, 3),
    "MatMulInteger": (1, None, 3),
}
"""Ops that read integers as weights -> the inputs that are the weight, its scale and its zero point. Where the op makes
integers, its scale is that of a whole layer."""


def filters(analysis: Analysis, source: Source) -> Floats | None:
    """(channels, weights per channel) of the source's weight as its layer uses it, integers dequantised; None where it
    does not follow from constants."""
    weight = constant_value(analysis.graph, source.weight)
    if weight is None:
        return None
    rows = np.moveaxis(weight.astype(np.float64), source.axis, 0).reshape(weight.shape[source.axis], -1)
    node = analysis.graph.nodes[source.node]
    position, scale, zero = _QUANTISED.get(node.op_type, (0, None, None))
    if node.input[position] != source.weight:
        return rows
    levels = _per_channel(analysis, node, zero, rows)
    factors = _per_channel(analysis, node, scale, rows)
    rows = rows if levels is None else rows - levels
    return rows if factors is None else rows * factors


def _per_channel(analysis: Analysis, node: onnx.NodeProto, position: int | None, rows: Floats) -> Floats | None:
    """A setting of a quantised weight, one for all or one per row, to broadcast over the rows."""
    if position is None or position >= len(node.input):
        return None
    value = constant_value(analysis.graph, node.input[position]) if node.input[position] else None
    return value.astype(np.float64).reshape(-1, 1) if value is not None and value.size in (1, len(rows)) else None


def constant_axis(analysis: Analysis, source: Source) -> tuple[str, int] | None:
    """The constant behind a weight (perhaps through Transpose, Cast, DequantizeLinear) and its axis of filters."""
    name = source.weight
    axis: int | None = source.axis
    while name not in analysis.graph.constants:
        if name not in analysis.graph.producer:
            return None
        node = analysis.graph.nodes[analysis.graph.producer[name]]
        if axis is not None:
            axis = _axis_before(node, axis, len(analysis.facts.shapes[name]))
        name = node.input[0]
    if axis is not None:  # labels would not tell: a matrix around which a shortcut leads has the same on both axes
        return name, axis
    wanted = analysis.roots[source.labels]
    for slot in analysis.propagation.slots:
        if slot[0] == name:
            for axis, labels in enumerate(analysis.propagation.slot_dims(slot)):
                if labels is not None and np.array_equal(analysis.roots[labels], wanted):
                    return name, axis
    return None


def _axis_before(node: onnx.NodeProto, axis: int, rank: int) -> int | None:
    """Where an axis of a node's output lies in its first input; None where that does not follow from the op alone."""
    if node.op_type == "Transpose":
        return (ints_attribute(node, "perm") or range(rank)[::-1])[axis]
    return axis if node.op_type in _SAME_AXES else None


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
