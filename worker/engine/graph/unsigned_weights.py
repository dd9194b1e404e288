"""Integer weights without a sign: the same numbers, of which sums come out right on every processor.

x86 processors without VNNI add two products of an unsigned and a signed byte up in 16 bits, and cut off what does not
fit. Which two these are depends on the channels beside each other, so that a network and its cut differ by it.
"""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_PLACES = {
    "QLinearConv": (2, 3, 5),
    "QLinearMatMul": (2, 3, 5),
    "ConvInteger": (2, 1, 3),
    "MatMulInteger": (2, 1, 3),
}
"""Places of the activations' zero point, the weight and its zero point."""
_SHIFT = 128


def without_sign(graph: onnx.GraphProto) -> None:
    """Shift signed weights, and their zero points, of layers that read unsigned activations, in place."""
    stored = {node.output[0]: value for node in graph.node if (value := _constant(node)) is not None}
    stored |= {tensor.name: tensor for tensor in graph.initializer}
    dynamic = {name for node in graph.node if node.op_type == "DynamicQuantizeLinear" for name in node.output}

    def shifted(name: str) -> str:
        new = f"{name}/unsigned"
        if new not in stored:
            values = numpy_helper.to_array(stored[name]).astype(np.int16) + _SHIFT
            stored[new] = graph.initializer.add()
            stored[new].CopyFrom(numpy_helper.from_array(values.astype(np.uint8), new))
        return new

    for node in graph.node:
        if node.op_type not in _PLACES:
            continue
        of_activations, weight, zeros = (_input(node, place) for place in _PLACES[node.op_type])
        kind = stored[of_activations].data_type if of_activations in stored else TensorProto.UNDEFINED
        signed = all(name in stored and stored[name].data_type == TensorProto.INT8 for name in (weight, zeros))
        if signed and (kind == TensorProto.UINT8 or of_activations in dynamic):
            for place, name in zip(_PLACES[node.op_type][1:], (weight, zeros), strict=True):
                node.input[place] = shifted(name)


def _constant(node: onnx.NodeProto) -> TensorProto | None:
    return next((a.t for a in node.attribute if node.op_type == "Constant" and a.name == "value"), None)


def _input(node: onnx.NodeProto, place: int) -> str:
    return node.input[place] if place < len(node.input) else ""
