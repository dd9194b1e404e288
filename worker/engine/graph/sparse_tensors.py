"""Sparse initializers and Constants, written densely: ONNX Runtime does so itself when it loads a file, and all that
reads weights finds them."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from worker.engine.errors import EngineError
from worker.engine.graph.onnx_graph import bodies_of

MAX_BYTES = 2**31 - 1  # what a model without external data can hold


def write_densely(graph: onnx.GraphProto) -> None:
    """In place, bodies included; external values stay. Raises EngineError where they are too many or out of place."""
    _write_densely(graph, MAX_BYTES)


def _write_densely(graph: onnx.GraphProto, left: int) -> int:
    """The bytes that are left of `left` then."""
    sparse = [tensor for tensor in graph.sparse_initializer if not _is_external(tensor)]
    kept = [tensor for tensor in graph.sparse_initializer if _is_external(tensor)]
    left -= _bytes(sparse, left)
    graph.initializer.extend(_dense(tensor) for tensor in sparse)
    del graph.sparse_initializer[:]
    graph.sparse_initializer.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "sparse_value" and not _is_external(attribute.sparse_tensor):
                left -= _bytes([attribute.sparse_tensor], left)
                attribute.CopyFrom(helper.make_attribute("value", _dense(attribute.sparse_tensor)))
        for body in bodies_of(node):
            left = _write_densely(body, left)
    return left


def _is_external(tensor: onnx.SparseTensorProto) -> bool:
    return any(part.data_location == TensorProto.EXTERNAL for part in (tensor.values, tensor.indices))


def _bytes(tensors: Iterable[onnx.SparseTensorProto], left: int) -> int:
    """A few bytes of a file can stand for any number of zeros."""
    total = 0
    for tensor in tensors:
        if tensor.values.data_type not in helper.get_all_tensor_dtypes():
            raise _unreadable(tensor, f"its element type is {tensor.values.data_type}")
        size = helper.tensor_dtype_to_np_dtype(tensor.values.data_type).itemsize
        for dim in tensor.dims:
            size *= max(dim, 0)
        total += size
        if total > left:
            raise EngineError(
                "too_large",
                f"Written densely, the sparse tensors of the model have more than {MAX_BYTES} bytes.",
                "Export the model with dense weights, in one file.",
                tensor.values.name or None,
            )
    return total


def _dense(tensor: onnx.SparseTensorProto) -> TensorProto:
    try:
        values, indices = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
        array = np.zeros(tuple(tensor.dims), values.dtype)
        if indices.ndim == 2:  # a row of coordinates for each value; else its place in memory order
            indices = np.ravel_multi_index(tuple(indices.T), array.shape)
        array.reshape(-1)[indices] = values
    except (ValueError, IndexError, TypeError) as error:
        raise _unreadable(tensor, str(error)) from error
    return numpy_helper.from_array(array, tensor.values.name)


def _unreadable(tensor: onnx.SparseTensorProto, reason: str) -> EngineError:
    return EngineError(
        "not_onnx",
        f"A sparse tensor of the model cannot be read: {reason}.",
        "Export the model with dense weights.",
        tensor.values.name or None,
    )
