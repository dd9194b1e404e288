"""The tensors that an ONNX file stores (initializers and Constant nodes), and which of them training may move."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from worker.engine.errors import EngineError
from worker.engine.graph.onnx_graph import FLOATS, captured_names

# Inputs of an op that hold weights. Sub and Div are left out: constants there normalise the input or a head's output.
_WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "Einsum": (0, 1, 2, 3),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Gather": (0,),
}
_AFFINE_OPS = frozenset({"Add", "Mul", "Sum"})
_FIRST_INPUT_IS_DATA = frozenset({"QuantizeLinear", "DequantizeLinear", "Clip", "Pad", "Pow"})  # others are settings
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min"})


def stored_tensors(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """Every tensor stored in the graph by its value name: initializers, and Constant nodes that hold a dense tensor."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    for name, tensor in tensors.items():
        if tensor.data_location == TensorProto.EXTERNAL:
            raise EngineError(
                "external_data",
                f"The weights of tensor {name!r} lie outside the ONNX file.",
                "Load the model with its external data, or save it as one file.",
            )
    return tensors


def trainable_names(graph: onnx.GraphProto, tensors: dict[str, TensorProto]) -> set[str]:
    """The stored tensors that training moves: floating-point weights of layers and norms, and the constants of Add and
    Mul nodes. Left alone are single numbers (attention scales, clip bounds, what a weight is computed with), attention
    masks, BN statistics, and anything that reaches no weight input."""
    consumers = _consumers(graph)
    constant_nodes = _constant_nodes(graph, tensors)
    return {
        name
        for name, tensor in tensors.items()
        if tensor.data_type in FLOATS and _reaches_weight_input(name, tensor, consumers, constant_nodes)
    }


def _reaches_weight_input(
    name: str, tensor: TensorProto, consumers: dict[str, list[tuple[NodeProto, int]]], constant_nodes: set[str]
) -> bool:
    """Follow a tensor through nodes that compute on constants only (Transpose, Reshape, weight standardisation ...)."""
    pending, seen = [name], {name}
    while pending:
        for node, index in consumers.get(pending.pop(), []):
            if node.output[0] in constant_nodes:
                if index and node.op_type in _FIRST_INPUT_IS_DATA:
                    continue
                if node.op_type in _ARITHMETIC and np.prod(tensor.dims) == 1:  # an epsilon, or a gain
                    continue
                pending += [o for o in node.output if o not in seen]
                seen.update(node.output)
            elif _is_weight(tensor, node, index):
                return True
    return False


def _is_weight(tensor: TensorProto, node: NodeProto, index: int) -> bool:
    """Whether training should move a tensor that arrives at this input of a node that computes on data."""
    if index in _WEIGHT_INPUTS.get(node.op_type, ()):
        return node.op_type != "InstanceNormalization" or not _is_neutral(tensor)
    return node.op_type in _AFFINE_OPS and np.prod(tensor.dims) > 1 and not _is_mask(tensor)


def _is_neutral(tensor: TensorProto) -> bool:
    """All ones or all zeros: a GroupNormalization is exported as an InstanceNormalization with these, whose own scale
    and bias follow as Mul and Add."""
    values = numpy_helper.to_array(tensor).reshape(-1)
    return bool((values == 1).all() or (values == 0).all())


def _is_mask(tensor: TensorProto) -> bool:
    """Zero and one other number (0 and -100, 0 and -inf) over more than one dimension: an attention mask."""
    values = numpy_helper.to_array(tensor).astype(np.float32)
    if not np.isfinite(values).all():
        return True
    return values.ndim > 1 and sum(d > 1 for d in values.shape) > 1 and _has_two_values(values.reshape(-1))


def _has_two_values(values: np.ndarray) -> bool:
    others = values[values != 0]
    return 0 < len(others) < len(values) and bool((others == others[0]).all())


def _constant_nodes(graph: onnx.GraphProto, tensors: dict[str, TensorProto]) -> set[str]:
    """First outputs of the nodes that depend on stored tensors only."""
    known = set(tensors)
    found = set()
    for node in graph.node:
        read = {name for name in node.input if name} | captured_names(node)
        if node.op_type == "Constant" or (node.input and read <= known):
            known.update(node.output)
            found.add(node.output[0])
    return found


def _consumers(graph: onnx.GraphProto) -> dict[str, list[tuple[NodeProto, int]]]:
    consumers: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            consumers.setdefault(name, []).append((node, index))
    return consumers


def overwrite(tensor: TensorProto, values: np.ndarray) -> None:
    """Replace a stored tensor's numbers; its name, type and shape stay."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    new = numpy_helper.from_array(np.ascontiguousarray(values.astype(dtype)).reshape(tuple(tensor.dims)), tensor.name)
    for field in ("float_data", "int32_data", "double_data", "int64_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.raw_data = new.raw_data
