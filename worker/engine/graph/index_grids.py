"""Grids of indices, as slices that are written in place are exported: which positions they name along each axis.

`x[:, :c] = y` is traced to a ScatterND whose indices are as many as y has elements, times the axes. They are made of
one short vector per axis, expanded over the others and joined; these are read, and the grid is not written out.
"""

from collections.abc import Mapping

import numpy as np

from worker.engine.graph.onnx_graph import Array, OnnxGraph, int_attribute

_PASSING = ("Cast", "Identity")
_DEEPEST = 16
"""Nodes in a row; exporters make four."""


def grid_positions(
    graph: OnnxGraph, values: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], name: str
) -> list[Array] | None:
    """For each indexed axis the positions along it, where `name` (n1, ..., nk, k) holds all their combinations, in
    order; else None. `values`: small tensors whose values are known."""
    shape = shapes.get(name, ())
    reach = len(shape) - 1
    if reach < 1 or shape[-1] != reach or 0 in shape:
        return None
    known = _known(graph, values, name)
    if known is not None:
        parts = [known[..., axis] for axis in range(reach)]
    else:
        joined = _parts(graph, name)
        views = [_view(graph, values, shapes, part) for part in joined]
        if len(views) != reach or any(view is None or view.shape != (*shape[:-1], 1) for view in views):
            return None
        parts = [view[..., 0] for view in views if view is not None]
    found = [_along(part, axis) for axis, part in enumerate(parts)]
    return None if any(each is None for each in found) else [each for each in found if each is not None]


def _known(graph: OnnxGraph, values: Mapping[str, Array], name: str) -> Array | None:
    if name in values:
        return values[name]
    return graph.array(name) if name in graph.constants else None


def _parts(graph: OnnxGraph, name: str) -> list[str]:
    """What is joined along the last axis."""
    index = graph.producer.get(name)
    node = None if index is None else graph.nodes[index]
    if node is None or node.op_type != "Concat" or int_attribute(node, "axis", 0) not in (-1, len(node.input)):
        return []
    return list(node.input)


def _view(
    graph: OnnxGraph, values: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], name: str, depth: int = 0
) -> Array | None:
    """The tensor's value; what is repeated in it takes no memory."""
    known = _known(graph, values, name)
    index = graph.producer.get(name)
    if known is not None or index is None or name not in shapes or depth > _DEEPEST:
        return known
    node = graph.nodes[index]
    if node.op_type not in (*_PASSING, "Expand", "Unsqueeze"):
        return None
    inner = _view(graph, values, shapes, node.input[0], depth + 1)
    if inner is None:
        return None
    if node.op_type == "Expand":
        return np.broadcast_to(inner, shapes[name])
    return inner.reshape(shapes[name])  # ones put in, if anything: a view


def _along(part: Array, axis: int) -> Array | None:
    """The values along one axis, where they are the same at every place of the others."""
    once = part[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in part.strides)]
    rows = np.moveaxis(once, axis, 0).reshape(once.shape[axis], -1)
    if not (rows == rows[:, :1]).all():
        return None
    return np.broadcast_to(rows[:, 0], part.shape[axis])
