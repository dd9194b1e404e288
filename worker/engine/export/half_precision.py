"""The model in float16: half the size, and half the memory traffic on hardware that computes in it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from worker.engine.errors import EngineError
from worker.engine.export.float16_range import LARGEST
from worker.engine.export.float32_tensors import float32_tensors
from worker.engine.graph.onnx_graph import in_order, int_attribute, ints_attribute, mentioned_names
from worker.engine.graph.stored_weights import with_initializers

_FLOAT32_ONLY = frozenset(
    [
        *("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLSTM"),
        *("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm", "Celu", "IsInf"),
    ]
)
"""Ops that take no float16, or not in every opset, besides those that the converter knows. So are the likes of
QLinearConv, for the scales that they read."""


def to_half_precision(
    model: onnx.ModelProto, *, keep_io: bool = True, too_large: Collection[str] = ()
) -> onnx.ModelProto:
    """A copy with float16 weights and arithmetic; with `keep_io` the inputs and outputs stay float32, behind Casts.

    Nodes that have no float16 form, read constants that float16 has no numbers for (running variances of millions,
    say), or make or read one of the tensors that are `too_large` (see float16_range), stay float32 between Casts.
    Raises EngineError where the model cannot be converted.
    """
    copy = onnx.ModelProto()
    # The converter leaves an initializer in float32 where only float32 nodes read it, and converts every Constant.
    copy.CopyFrom(with_initializers(model, scalars=True))
    _declare(copy.graph, float32_tensors(copy))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says of each weight beyond float16's range that it was cut off
            converted: onnx.ModelProto = convert_float_to_float16(
                copy,
                keep_io_types=keep_io,
                node_block_list=list(_in_single_precision(copy.graph, frozenset(too_large))),
            )
    except (ValueError, TypeError, AttributeError, KeyError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(
            "half_precision_failed",
            f"The pruned model cannot be converted to float16: {error}.",
            "Leave export.float16 out, and report the model.",
        ) from error
    _leave_out_detours(converted.graph)
    return in_order(converted)  # the converter writes its Casts behind everything else


def _declare(graph: onnx.GraphProto, tensors: Collection[str]) -> None:
    """State that these are float32: beside a node in float32 the converter casts what it knows the type of."""
    known = {value.name for value in (*graph.output, *graph.value_info)}
    graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors if name not in known
    )


def _leave_out_detours(graph: onnx.GraphProto) -> None:
    """Between two nodes in float32 the converter writes a Cast to float16 and one back, where large values would be
    lost: the one back is given what the other was. It writes one for each node that reads it, too, all alike."""
    casts: dict[str, onnx.NodeProto] = {}
    others = []
    for node in graph.node:
        if node.op_type == "Cast":
            casts.setdefault(node.output[0], node)
        else:
            others.append(node)
    for cast in casts.values():
        down = casts.get(cast.input[0])
        if down is not None and _target(cast) == TensorProto.FLOAT and _target(down) == TensorProto.FLOAT16:
            cast.input[0] = down.input[0]
    nodes = [*others, *casts.values()]
    read = {*mentioned_names(graph)}
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.op_type != "Cast" or node.output[0] in read)


def _target(cast: onnx.NodeProto) -> int:
    return int_attribute(cast, "to", TensorProto.UNDEFINED)


def _in_single_precision(graph: onnx.GraphProto, too_large: frozenset[str]) -> Iterator[str]:
    """Names of nodes that take no float16, read or make what is too large for it, or kill ONNX Runtime in it. They are
    given one where they have none."""
    large = too_large.union(tensor.name for tensor in graph.initializer if _exceeds(tensor))
    deadly = set(_batch_transposes(graph))
    for number, node in enumerate(graph.node):
        beyond = large.intersection((*node.input, *node.output))
        takes_none = node.op_type in _FLOAT32_ONLY or node.op_type.startswith("QLinear")
        if takes_none or beyond or deadly.intersection(node.output):
            node.name = node.name or f"float32_{number}"
            yield node.name


def _batch_transposes(graph: onnx.GraphProto) -> Iterator[str]:
    """Outputs of Transposes of the first axis between float16 and a MatMul with constant weights: ONNX Runtime (1.31)
    fuses these into something that it dies of while it loads the model."""
    weights = {tensor.name for tensor in graph.initializer}
    multiplied = {
        name
        for node in graph.node
        if node.op_type == "MatMul" and weights.intersection(node.input)
        for name in node.input
    }
    for node in graph.node:
        order = ints_attribute(node, "perm") or []  # reversed, where it is not said
        if node.op_type == "Transpose" and multiplied.intersection(node.output) and order[:1] != [0]:
            yield node.output[0]


def _exceeds(tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT:
        return False
    values = np.abs(numpy_helper.to_array(tensor))
    return bool((values[np.isfinite(values)] > LARGEST).any())
