"""Evaluation of the small integer chains that compute shapes, indices and paddings (Shape, Gather, Concat, ...)."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from worker.engine.graph.onnx_graph import Array, OnnxGraph, attribute, int_attribute, ints_attribute

SMALL = 4096
_Fold = Callable[[onnx.NodeProto, list[Array]], Array]
_NP_TYPES: dict[int, type[np.generic]] = {
    onnx.TensorProto.INT64: np.int64,
    onnx.TensorProto.INT32: np.int32,
    onnx.TensorProto.BOOL: np.bool_,
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
}


def fold(graph: OnnxGraph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Values of the small tensors that follow from constants and known shapes alone."""
    values: dict[str, Array] = {}

    def value(name: str) -> Array | None:
        if name in values:
            return values[name]
        tensor = graph.constants.get(name)
        if tensor is not None and int(np.prod(tensor.dims)) <= SMALL:
            values[name] = graph.array(name)
            return values[name]
        return None

    for node in graph.nodes:
        result = _shape_of(node, shapes) if node.op_type in ("Shape", "Size") else None
        if result is None and node.op_type in _FOLDS and len(node.output) == 1:
            inputs = [value(name) for name in node.input if name]
            known = [array for array in inputs if array is not None]
            if inputs and len(known) == len(inputs):
                result = _evaluate(node, known)
        if result is not None and result.size <= SMALL:
            values[node.output[0]] = result
    # Float constants were read on the way; only integers are facts, the rest is weights.
    return {
        name: array for name, array in values.items() if array.dtype.kind in "ib" or name not in graph.constants
    } | {
        name: graph.array(name)
        for name, tensor in graph.constants.items()
        if tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
        and int(np.prod(tensor.dims)) <= SMALL
    }


def _shape_of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> Array | None:
    shape = shapes.get(node.input[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.asarray(int(np.prod(shape)), dtype=np.int64)
    end: int | None = attribute(node, "end")
    return np.asarray(shape[int_attribute(node, "start", 0) : end], dtype=np.int64)


def _evaluate(node: onnx.NodeProto, inputs: list[Array]) -> Array | None:
    try:
        return np.asarray(_FOLDS[node.op_type](node, inputs))
    except (ValueError, IndexError, TypeError, ZeroDivisionError):
        return None  # a malformed chain: the real pass will tell


def _axes(node: onnx.NodeProto, inputs: list[Array]) -> tuple[int, ...] | None:
    axes = ints_attribute(node, "axes")
    if axes is None and len(inputs) > 1:
        axes = [int(a) for a in np.atleast_1d(inputs[1])]
    return None if axes is None else tuple(axes)


def _slice(node: onnx.NodeProto, x: list[Array]) -> Array:
    if len(x) == 1:
        starts, ends = ints_attribute(node, "starts") or [], ints_attribute(node, "ends") or []
        axes, steps = ints_attribute(node, "axes") or list(range(len(starts))), [1] * len(starts)
    else:
        starts, ends = x[1].tolist(), x[2].tolist()
        axes = x[3].tolist() if len(x) > 3 else list(range(len(starts)))
        steps = x[4].tolist() if len(x) > 4 else [1] * len(starts)
    index: list[slice] = [slice(None)] * x[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        stop = None if step < 0 and end < -x[0].shape[axis] else end
        index[axis] = slice(start, stop, step)
    return x[0][tuple(index)]


def _divide(node: onnx.NodeProto, x: list[Array]) -> Array:
    if x[0].dtype.kind == "f":
        return np.asarray(np.divide(x[0], x[1]))
    # ONNX divides integers as C does: towards zero.
    return np.asarray(np.trunc(np.divide(x[0], x[1]))).astype(x[0].dtype)


def _reshape(node: onnx.NodeProto, x: list[Array]) -> Array:
    allow_zero = int_attribute(node, "allowzero", 0)
    shape = [x[0].shape[i] if s == 0 and not allow_zero else int(s) for i, s in enumerate(x[1].tolist())]
    return x[0].reshape(shape)


def _unsqueeze(node: onnx.NodeProto, x: list[Array]) -> Array:
    return np.expand_dims(x[0], _axes(node, x) or ())


def _squeeze(node: onnx.NodeProto, x: list[Array]) -> Array:
    return np.squeeze(x[0], _axes(node, x))


def _concat(node: onnx.NodeProto, x: list[Array]) -> Array:
    return np.concatenate(x, axis=int_attribute(node, "axis", 0))


def _gather(node: onnx.NodeProto, x: list[Array]) -> Array:
    return np.asarray(np.take(x[0], x[1].astype(np.int64), axis=int_attribute(node, "axis", 0)))


def _cast(node: onnx.NodeProto, x: list[Array]) -> Array:
    return x[0].astype(_NP_TYPES[int_attribute(node, "to", 0)]) if int_attribute(node, "to", 0) in _NP_TYPES else x[0]


def _constant_of_shape(node: onnx.NodeProto, x: list[Array]) -> Array:
    value = attribute(node, "value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    if np.prod(x[0]) > SMALL:
        raise ValueError("too large to be a shape")
    return np.full(x[0].tolist(), fill.ravel()[0], dtype=fill.dtype)


def _transpose(node: onnx.NodeProto, x: list[Array]) -> Array:
    return np.transpose(x[0], ints_attribute(node, "perm"))


def _reduce_prod(node: onnx.NodeProto, x: list[Array]) -> Array:
    return np.asarray(np.prod(x[0], axis=_axes(node, x), keepdims=bool(int_attribute(node, "keepdims", 1))))


_FOLDS: dict[str, _Fold] = {
    "Identity": lambda _, x: x[0],
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ConstantOfShape": _constant_of_shape,
    "ReduceProd": _reduce_prod,
    "Expand": lambda _, x: x[0] * np.ones(x[1].tolist(), x[0].dtype),
    "Add": lambda _, x: x[0] + x[1],
    "Sub": lambda _, x: x[0] - x[1],
    "Mul": lambda _, x: x[0] * x[1],
    "Div": _divide,
    "Mod": lambda _, x: np.mod(x[0], x[1]),
    "Neg": lambda _, x: np.negative(x[0]),
    "Abs": lambda _, x: np.abs(x[0]),
    "Floor": lambda _, x: np.floor(x[0]),
    "Ceil": lambda _, x: np.ceil(x[0]),
    "Sqrt": lambda _, x: np.sqrt(x[0]),
    "Min": lambda _, x: np.minimum.reduce(x),
    "Max": lambda _, x: np.maximum.reduce(x),
    "Range": lambda _, x: np.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype),
    "Equal": lambda _, x: x[0] == x[1],
    "Less": lambda _, x: x[0] < x[1],
    "Greater": lambda _, x: x[0] > x[1],
    "LessOrEqual": lambda _, x: x[0] <= x[1],
    "GreaterOrEqual": lambda _, x: x[0] >= x[1],
    "Not": lambda _, x: np.logical_not(x[0]),
    "And": lambda _, x: np.logical_and(x[0], x[1]),
    "Or": lambda _, x: np.logical_or(x[0], x[1]),
    "Where": lambda _, x: np.where(x[0].astype(bool), x[1], x[2]),
}
