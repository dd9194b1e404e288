"""Half-precision models as float32 models of the same graph."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import GraphProto, TensorProto, numpy_helper

_HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


def in_single_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself if it holds no half precision, else a copy in float32: weights, casts, and declared types."""
    if not any(_is_half(graph) for graph in _graphs(model.graph)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in _graphs(copy.graph):
        _widen(graph)
    return copy


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(body)


def _is_half(graph: GraphProto) -> bool:
    tensors = any(tensor.data_type in _HALVES for tensor in _tensors(graph))
    return tensors or any(value.type.tensor_type.elem_type in _HALVES for value in _values(graph))


def _widen(graph: GraphProto) -> None:
    for tensor in _tensors(graph):
        if tensor.data_type in _HALVES:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    for value in _values(graph):
        if value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in {"to", "dtype", "output_dtype"} and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))


def _values(graph: GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info
