"""Graphs made comparable: in float32, without rounding of activations, without chance."""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from worker.engine.graph.dynamic_rounding import drop_dynamic_rounding
from worker.engine.graph.unsigned_weights import without_sign

_HALF = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_TYPE_ATTRIBUTES = {"to", "dtype", "stash_type"}


def settle(model: onnx.ModelProto) -> None:
    """Make a model comparable to the last bits, in place: without chance, activation rounding, half precision, and what
    some processors make of signed bytes."""
    _drop_chance(model.graph)
    changed = drop_dynamic_rounding(model.graph)
    without_sign(model.graph)
    changed |= _drop_rounding(model.graph)
    declared = [value for value in model.graph.value_info if value.name not in changed]
    del model.graph.value_info[:]
    model.graph.value_info.extend(declared)
    if _computes_in_half(model):
        _convert_graph(model.graph)


def _computes_in_half(model: onnx.ModelProto) -> bool:
    return any(t.data_type in _HALF for t in model.graph.initializer) or any(
        (a.name in _TYPE_ATTRIBUTES and a.i in _HALF) or (a.type == a.TENSOR and a.t.data_type in _HALF)
        for node in model.graph.node
        for a in node.attribute
    )


def _convert_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _convert_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _HALF:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALF:
                attribute.i = TensorProto.FLOAT
            elif attribute.type == attribute.TENSOR:
                _convert_tensor(attribute.t)
            elif attribute.type == attribute.GRAPH:
                _convert_graph(attribute.g)


def _convert_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in _HALF:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _drop_chance(graph: onnx.GraphProto) -> None:
    """Noise like x becomes x itself, free noise becomes zeros, and dropout stops."""
    for node in graph.node:
        if node.op_type in ("RandomNormalLike", "RandomUniformLike", "Bernoulli"):
            node.op_type = "Identity"
            del node.attribute[:]
        elif node.op_type in ("RandomNormal", "RandomUniform"):
            shape = next(list(a.ints) for a in node.attribute if a.name == "shape")
            zeros = numpy_helper.from_array(np.zeros(shape, np.float32))
            node.CopyFrom(onnx.helper.make_node("Constant", [], list(node.output), value=zeros))
        elif node.op_type == "Dropout":
            del node.input[1:]


def _drop_rounding(graph: onnx.GraphProto) -> set[str]:
    """Activations pass QuantizeLinear-DequantizeLinear pairs unchanged: a rounding step turns a difference in the last
    bit into one of a whole level. The names of the tensors that are levels no more."""
    constants = {t.name for t in graph.initializer}
    constants |= {n.output[0] for n in graph.node if n.op_type == "Constant"}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    outputs = {o.name for o in graph.output}
    passed: set[str] = set()
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants or node.output[0] in outputs:
            continue
        readers = users.get(node.output[0], [])
        if readers and all(reader.op_type == "DequantizeLinear" for reader in readers):
            for pair in (node, *readers):
                pair.op_type, pair.domain = "Identity", ""  # they may be the runtime's own
                del pair.input[1:]
                del pair.attribute[:]
                passed.update(pair.output)
    return passed
