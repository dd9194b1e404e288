"""A byte budget for every tensor, checked from shapes alone, before the model is run for the first time.

A file of 104 bytes can ask for 160 GB: ConstantOfShape passes the checker and session creation and fails only when
run. Shapes that inference cannot tell are left to the address-space limit of the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

from worker.engine.errors import EngineError
from worker.engine.graph.inputs import Sizes, candidate_sizes
from worker.engine.graph.onnx_graph import OnnxGraph

MAX_TENSOR_BYTES = 2**29
MAX_TOTAL_BYTES = 2**32  # all tensors between the nodes, for one or two samples
_SMALL = 1024  # elements of a constant whose value may be a shape


def check_bytes(model: onnx.ModelProto) -> None:
    """Raise EngineError, naming the tensor, where one would exceed its budget or all together theirs."""
    graph = OnnxGraph(model)
    sizes = next(candidate_sizes(graph))[0]
    for value in graph.inputs:
        _check(value.name, _bytes(value, sizes[value.name]))
    total = 0
    for value in _inner_values(_inferred(graph, sizes).graph):
        size = _bytes(value, _known_shape(value))
        _check(value.name, size)
        total += size
    if total > MAX_TOTAL_BYTES:
        raise EngineError(
            "too_much_memory",
            f"Running the model takes {total / 2**30:.1f} GiB for the tensors between its nodes.",
            f"At most {MAX_TOTAL_BYTES / 2**30:.0f} GiB are given; fix the inputs to smaller sizes.",
        )


def _check(name: str, size: int) -> None:
    if size > MAX_TENSOR_BYTES:
        raise EngineError(
            "tensor_too_large",
            f"The tensor {name[:200]!r} would take {size / 2**30:.1f} GiB.",
            f"At most {MAX_TENSOR_BYTES / 2**20:.0f} MiB are given to one tensor; fix the inputs to smaller sizes.",
            name[:200],
        )


def _inferred(graph: OnnxGraph, sizes: Sizes) -> onnx.ModelProto:
    """The graph with inferred shapes, at these input sizes and without the values of its weights."""
    skeleton = onnx.ModelProto(ir_version=max(graph.model.ir_version, 4))
    skeleton.opset_import.extend(graph.model.opset_import)
    skeleton.graph.node.extend(graph.nodes)
    for tensor in graph.proto.initializer:
        small = math.prod(tensor.dims) <= _SMALL
        shape_only = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        skeleton.graph.initializer.append(tensor if small else shape_only)
    for value in graph.inputs:
        concrete = skeleton.graph.input.add()
        concrete.CopyFrom(value)
        del concrete.type.tensor_type.shape.dim[:]
        for size in sizes[value.name]:
            concrete.type.tensor_type.shape.dim.add().dim_value = size
    for name in graph.outputs:
        skeleton.graph.output.add().name = name
    try:
        return onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return skeleton


def _inner_values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    """Values between nodes and outputs, those of If, Loop and Scan bodies included."""
    yield from graph.value_info
    yield from graph.output
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _inner_values(body)


def _known_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Dimensions that are known; the others count as one."""
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim if d.HasField("dim_value"))


def _bytes(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> int:
    kind = value.type.tensor_type.elem_type
    numeric = kind not in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING)
    width = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize if numeric else 8
    return math.prod(shape) * width
