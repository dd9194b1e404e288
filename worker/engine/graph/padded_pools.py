"""Zeros around a MaxPool, kept there.

ONNX Runtime folds a Pad of zeros into the MaxPool behind it, whose own padding counts as minus infinity. Where a window
at the border holds nothing above zero, the result is another than the standard's, torch's and that of the framework
which the network comes from (microsoft/onnxruntime, pull request 18136; so in 1.31). ResNetV2 of Keras has such a pool,
and so have ports of tiny YOLO, whose LeakyRelu leaves values below zero. A Pad of anything but zero is not folded.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph.onnx_graph import OnnxGraph, attribute, node_label

NEARLY_ZERO = 1e-7
"""Not zero in float16 either, and below what float32 keeps of an activation of 1."""
_NAME = "nearly_zero"
_VALUE_IS_INPUT = 11
"""From this opset on the value of a Pad is an input; before, an attribute."""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_NEVER_NEGATIVE = frozenset(["Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"])
_SIGN_KEPT = frozenset(
    [
        *("AveragePool", "Cast", "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool"),
        *("Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    ]
)


def keep_zeros_apart(model: onnx.ModelProto) -> None:
    """Have the Pads of zeros that ONNX Runtime would fold wrongly pad with NEARLY_ZERO, in place."""
    if not {"Pad", "MaxPool"} <= {node.op_type for node in model.graph.node}:
        return
    graph = OnnxGraph(model)
    for node in list(_folded_wrongly(graph)):
        if graph.opset < _VALUE_IS_INPUT:
            kept = [a for a in node.attribute if a.name != "value"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("value", NEARLY_ZERO)])
        elif (kind := _element_type(graph, node.input[0])) in _FLOATS:
            name = f"{node.output[0]}/{_NAME}"
            value = np.array(NEARLY_ZERO, helper.tensor_dtype_to_np_dtype(kind))
            model.graph.initializer.append(numpy_helper.from_array(value, name))
            del node.input[2:3]
            node.input.insert(2, name)


def kept_apart(model: onnx.ModelProto) -> tuple[str, ...]:
    """What to say of each Pad for which that was done."""
    return tuple(
        f"ONNX Runtime takes the zeros of Pad '{node_label(node)}' for minus infinity, as a MaxPool follows: it gives "
        "other results for the uploaded file than the framework that wrote it. Original and pruned model are measured "
        f"with {NEARLY_ZERO:g} in place of these zeros, which it keeps; the pruned file has it, too."
        for node in model.graph.node
        if node.op_type == "Pad" and _is_marked(node)
    )


def _is_marked(node: onnx.NodeProto) -> bool:
    value = attribute(node, "value", 0.0)
    return value == np.float32(NEARLY_ZERO) or any(name.endswith(f"/{_NAME}") for name in node.input[2:3])


def _folded_wrongly(graph: OnnxGraph) -> Iterator[onnx.NodeProto]:
    for node, scope in zip(graph.nodes, graph.scope, strict=True):
        if scope or node.op_type != "Pad" or not node.input or attribute(node, "mode", b"constant") != b"constant":
            continue
        readers = [graph.nodes[index] for index, _ in graph.consumers.get(node.output[0], [])]
        pooled = any(reader.op_type == "MaxPool" for reader in readers)
        if pooled and _pads_with_zero(graph, node) and not _is_never_negative(graph, node.input[0]):
            yield node


def _pads_with_zero(graph: OnnxGraph, node: onnx.NodeProto) -> bool:
    if graph.opset < _VALUE_IS_INPUT or len(node.input) < 3 or not node.input[2]:
        return bool(attribute(node, "value", 0.0) == 0.0)
    value = graph.constants.get(node.input[2])
    if value is None or value.data_location == TensorProto.EXTERNAL or value.data_type not in _FLOATS:
        return False
    try:
        return not np.any(numpy_helper.to_array(value))
    except ValueError:  # not as many bytes as it declares, of which ONNX Runtime will say more
        return False


def _is_never_negative(graph: OnnxGraph, name: str) -> bool:
    node = _producer(graph, name)
    while node is not None and node.op_type in _SIGN_KEPT:
        node = _producer(graph, node.input[0])
    return node is not None and node.op_type in _NEVER_NEGATIVE


def _element_type(graph: OnnxGraph, name: str) -> int | None:
    """Told by the graph, or followed to where it is: ops on images give what they read. None where it is not found."""
    told = {value.name: value for value in (*graph.proto.input, *graph.proto.value_info)}
    for _ in range(len(graph.nodes) + 1):
        if name in graph.constants:
            return int(graph.constants[name].data_type)
        if name in told:
            return int(told[name].type.tensor_type.elem_type)
        node = _producer(graph, name)
        if node is None or not node.input:
            return None
        if node.op_type == "Cast":
            return int(attribute(node, "to", TensorProto.UNDEFINED))
        name = node.input[1] if node.op_type in ("Where", "DequantizeLinear") else node.input[0]
    return None


def _producer(graph: OnnxGraph, name: str) -> onnx.NodeProto | None:
    index = graph.producer.get(name)
    return None if index is None else graph.nodes[index]
