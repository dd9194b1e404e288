"""Ops that runtimes and exporters put in place of standard ones, written as these: what ONNX Runtime's optimiser fuses
and its quantiser writes, lists of tensors that are taken apart at once, control flow that is decided (decided_flow).
The graph computes the same, and every rule for standard ops holds for it; ONNX Runtime fuses again whatever it would
have fused.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph.decided_flow import known_branch, known_rounds
from worker.engine.graph.onnx_graph import OnnxGraph, bodies_of, mentioned_names
from worker.engine.graph.rewriting import Op, Rewrite, Rewriting, op_of


def with_standard_ops(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without such ops, as far as they have a standard form, or the model itself where there are none."""
    graph = OnnxGraph(model)
    if not any(op_of(node) in _REWRITES for node in graph.nodes):
        return model
    rewriting = Rewriting(graph, _REWRITES)
    nodes = graph.rebuild(rewriting.edit)
    if not rewriting.count:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(_without_dead_lists(nodes, set(graph.outputs)))
    if not any(o.domain in ("", "ai.onnx") for o in result.opset_import):
        result.opset_import.append(helper.make_opsetid("", graph.opset))
    return with_standard_ops(result) if rewriting.opened else result  # what lay in a body may have a standard form, too


# ---------------------------------------------------------------------------------------------- fused by the runtime


def _fused_conv(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """X, W, B, Z: activation(Conv(X, W, B) + Z)."""
    own = ("activation", "activation_params")
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = list(node.input)
    operands = inputs[:3] if len(inputs) > 2 and inputs[2] else inputs[:2]
    name = to.add("Conv", *operands, named=node.name, **_but(attributes, own))
    if len(inputs) > 3 and inputs[3]:
        name = to.add("Add", name, inputs[3])
    return _activated(to, name, node.output[0], attributes, list(attributes.get("activation_params", ())))


def _fused_gemm(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    own = ("activation", "activation_alpha", "activation_beta", "activation_gamma")
    name = to.add("Gemm", *node.input, named=node.name, **_but(attributes, own))
    return _activated(to, name, node.output[0], attributes, [attributes[key] for key in own[1:] if key in attributes])


def _but(attributes: dict[str, Any], own: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in own}


_PARAMETERS = {
    "Clip": ("min", "max"),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
}
"""Activations -> the attributes that a fused op lists as its parameters."""


def _activated(to: Rewriting, x: str, output: str, attributes: dict[str, Any], values: list[float]) -> bool:
    kind = attributes.get("activation", b"")
    op = kind.decode() if isinstance(kind, bytes) else str(kind)
    settings: dict[str, Any] = dict(zip(_PARAMETERS.get(op, ()), values, strict=False))
    if op == "Clip" and to.graph.opset >= 11:
        to.add("Clip", x, *[to.number(value) for value in values], to=output)
    elif op in ("", "Relu", "Sigmoid", "Tanh", "HardSwish", *_PARAMETERS):
        to.add(op or "Identity", x, to=output, **settings)
    else:
        return False
    return True


def _fused_matmul(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if any(attributes.get(key) for key in ("transBatchA", "transBatchB")):
        return False
    operands = []
    for name, key in zip(node.input, ("transA", "transB"), strict=True):
        if attributes.get(key):
            rank = to.rank(name)
            if rank is None or rank < 2:
                return False
            name = to.add("Transpose", name, perm=[*range(rank - 2), rank - 1, rank - 2])
        operands.append(name)
    alpha = float(attributes.get("alpha", 1.0))
    if alpha == 1.0:
        to.add("MatMul", *operands, to=node.output[0], named=node.name)
    else:
        product = to.add("MatMul", *operands, named=node.name)
        to.add("Mul", product, to.number(alpha), to=node.output[0])
    return True


def _skip_layer_norm(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """X, skip, scale, bias, bias of the sum: LayerNormalization(X + skip + bias of the sum), and the sum itself."""
    inputs, outputs = [*node.input, "", ""], [*node.output, "", "", ""]
    if any(name in to.graph.consumers or name in to.graph.outputs for name in outputs[1:3]):
        return False  # mean and inverse deviation
    terms = [inputs[0], inputs[1], *inputs[4:5]]
    total = to.add("Add", *terms[:2], to=outputs[3] if outputs[3] and not terms[2] else None)
    if terms[2]:
        total = to.add("Add", total, terms[2], to=outputs[3] or None)
    affine = inputs[2:4] if inputs[3] else inputs[2:3]
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-12)
    to.add("LayerNormalization", total, *affine, to=outputs[0], named=node.name, axis=-1, epsilon=epsilon)
    return True


def _gelu(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """x Phi(x), Phi being the normal distribution's."""
    x = to.add("Add", *node.input) if len(node.input) > 1 else node.input[0]
    phi = to.add("Add", to.add("Erf", to.add("Div", x, to.number(math.sqrt(2)))), to.number(1))
    to.add("Mul", to.add("Mul", x, phi), to.number(0.5), to=node.output[0])
    return True


def _fast_gelu(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    x = to.add("Add", *node.input) if len(node.input) > 1 and node.input[1] else node.input[0]
    cubic = to.add("Mul", to.add("Mul", to.add("Mul", x, x), x), to.number(0.044715))
    inner = to.add("Mul", to.add("Add", x, cubic), to.number(math.sqrt(2 / math.pi)))
    outer = to.add("Mul", x, to.add("Add", to.add("Tanh", inner), to.number(1)))
    to.add("Mul", outer, to.number(0.5), to=node.output[0])
    return True


def _quick_gelu(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    alpha = next((a.f for a in node.attribute if a.name == "alpha"), 1.702)
    gate = to.add("Sigmoid", to.add("Mul", node.input[0], to.number(alpha)))
    to.add("Mul", node.input[0], gate, to=node.output[0])
    return True


def _quantisation(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """In an opset whose own op takes this scale, this zero point and, if there is one, the axis."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    parameters = [to.graph.constants.get(name) for name in node.input[1:] if name]
    needed = 13 if "axis" in attributes else 10
    for parameter in parameters:
        if parameter is None or parameter.data_type not in _QUANTISED_SINCE:
            return False
        needed = max(needed, _QUANTISED_SINCE[parameter.data_type])
    if to.graph.opset < needed or not attributes.keys() <= {"axis"}:
        return False
    to.add(node.op_type, *node.input, to=node.output[0], named=node.name, **attributes)
    return True


_QUANTISED_SINCE: dict[int, int] = {
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32), 10),
    TensorProto.FLOAT16: 19,
    **dict.fromkeys((TensorProto.INT16, TensorProto.UINT16), 21),
}
"""Types of scales and zero points -> the first opset whose ops take them."""


def _between_pairs(
    to: Rewriting,
    node: onnx.NodeProto,
    op: str,
    operands: Sequence[Sequence[str]],
    made: Sequence[str],
    attributes: dict[str, Any],
) -> bool:
    """The op on floats, each operand (x, scale, zero point) dequantised, what it gives quantised by `made`."""
    parameters = [*(each[1:] for each in operands), made]
    if to.graph.opset < 10 or any(len(each) != 2 or not _is_per_tensor(to, *each) for each in parameters):
        return False
    floats = [to.add("DequantizeLinear", *each) for each in operands]
    result = to.add(op, *floats, named=node.name, **attributes)
    to.add("QuantizeLinear", result, *made, to=node.output[0])
    return True


def _is_per_tensor(to: Rewriting, scale: str, zero: str) -> bool:
    """Whether a float32 scale and a zero point of eight bits are constants, one of each."""
    kinds = ((scale, (TensorProto.FLOAT,)), (zero, (TensorProto.INT8, TensorProto.UINT8)))
    stored = [(to.graph.constants.get(name), kind) for name, kind in kinds]
    return all(t is not None and t.data_type in kind and math.prod(t.dims) == 1 for t, kind in stored)


def _quantised(op: str, operands: int = 1) -> Rewrite:
    """x, scale and zero point of each operand, then scale and zero point of the result."""

    def rewrite(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        inputs = list(node.input)
        given = [inputs[3 * position : 3 * position + 3] for position in range(operands)]
        if attributes.pop("channels_last", 0):
            return False
        return _between_pairs(to, node, op, given, inputs[3 * operands :], attributes)

    return rewrite


def _quantised_concat(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """Scale and zero point of the result come first."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = list(node.input)
    given = [inputs[start : start + 3] for start in range(2, len(inputs), 3)]
    return _between_pairs(to, node, "Concat", given, inputs[:2], attributes)


def _quantised_softmax(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """It says of which opset its axis is meant."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = list(node.input)
    if (attributes.get("opset", 1) >= 13) != (to.graph.opset >= 13):
        return False
    return _between_pairs(to, node, "Softmax", [inputs[:3]], inputs[3:], {"axis": attributes.get("axis", -1)})


def _quantised_gemm(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """A, B and their parameters, C, and those of the result: the scale of C is alpha times those of A and B."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = [*node.input, *[""] * (9 - len(node.input))]
    a_scale, b_scale, bias = to.constant(inputs[1]), to.constant(inputs[4]), to.graph.constants.get(inputs[6])
    if a_scale is None or b_scale is None or not _is_per_tensor(to, inputs[1], inputs[2]):
        return False
    per_column = b_scale.size > 1
    if to.graph.opset < (13 if per_column else 10) or (inputs[6] and (bias is None or len(bias.dims) != 1)):
        return False
    if inputs[7] and not _is_per_tensor(to, inputs[7], inputs[8]):
        return False
    columns: dict[str, Any] = {"axis": 0 if attributes.get("transB", 0) else 1} if per_column else {}
    operands = [to.add("DequantizeLinear", *inputs[:3]), to.add("DequantizeLinear", *inputs[3:6], **columns)]
    if inputs[6]:
        scale = np.asarray(a_scale.reshape(()) * b_scale.reshape(-1) * attributes.get("alpha", 1.0), np.float32)
        step = to.add("Constant", value=numpy_helper.from_array(scale if per_column else scale.reshape(())))
        each: dict[str, Any] = {"axis": 0} if per_column else {}
        operands.append(to.add("DequantizeLinear", inputs[6], step, **each))
    if inputs[7]:
        result = to.add("Gemm", *operands, named=node.name, **attributes)
        to.add("QuantizeLinear", result, *inputs[7:], to=node.output[0])
    else:
        to.add("Gemm", *operands, to=node.output[0], named=node.name, **attributes)
    return True


# ---------------------------------------------------------------------------------------------- lists of tensors


def _concat_from_sequence(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """torch.cat and torch.stack of a list, as TorchScript exports them."""
    elements = _elements(to, node.input[0])
    attributes = {a.name: a.i for a in node.attribute}
    if not elements:
        return False
    axis, names = attributes["axis"], elements
    if attributes.get("new_axis"):
        names = [to.unsqueezed(name, axis) for name in names]
    to.add("Concat", *names, to=node.output[0], axis=axis)
    return True


def _elements(to: Rewriting, name: str) -> list[str] | None:
    """The tensors in a list that was made at once, or by appending one after the other; None for other lists."""
    appended: list[str] = []
    while (made := to.maker(name)) is not None:
        if made.op_type == "SequenceConstruct":
            return [*made.input, *appended[::-1]]
        if made.op_type == "SequenceEmpty":
            return appended[::-1]
        if made.op_type == "SequenceInsert" and len(made.input) == 2:
            appended.append(made.input[1])
        elif made.op_type != "Identity":
            return None
        name = made.input[0]
    return None


def _sequence_at(to: Rewriting, index: int, node: onnx.NodeProto) -> bool:
    """An element of a list that was made element by element, or by torch.split or torch.chunk."""
    made, position = to.maker(node.input[0]), to.constant(node.input[1])
    if made is None or position is None or position.size != 1:
        return False
    at = int(position.item())  # a list of one is taken for a number, too
    elements = _elements(to, node.input[0])
    if elements is not None and -len(elements) <= at < len(elements):
        to.add("Identity", elements[at], to=node.output[0])
        return True
    if made.op_type != "SplitToSequence":
        return False
    attributes = {a.name: a.i for a in made.attribute}
    axis = attributes.get("axis", 0)
    if len(made.input) < 2 or not made.input[1]:
        if at >= 0 and not attributes.get("keepdims", 1):
            index_ = to.add("Constant", value=numpy_helper.from_array(np.array(at, np.int64)))
            to.add("Gather", made.input[0], index_, to=node.output[0], axis=axis)
            return True
        bounds = (at, at + 1) if at >= 0 else None
    else:
        bounds = _bounds(to.constant(made.input[1]), at)
    if bounds is None:
        return False
    start, end = bounds
    limits = (to.integers(start), to.integers(end), to.integers(axis))
    to.add("Slice", made.input[0], *limits, to=node.output[0])
    return True


def _bounds(split: np.ndarray | None, at: int) -> tuple[int, int] | None:
    """Where element `at` begins and ends; `split` is the size of all, or of each."""
    if split is None or (split.ndim == 0 and at < 0):
        return None
    if split.ndim == 0:
        return at * int(split), (at + 1) * int(split)
    if not -len(split) <= at < len(split):
        return None
    end = int(np.cumsum(split)[at])
    return end - int(split[at]), end


_LISTS = ("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SplitToSequence")


def _without_dead_lists(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """Lists that nothing reads any more are left out. A list may be made of another, hence backwards."""
    read = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if node.op_type in _LISTS and read.isdisjoint(node.output):
            continue
        kept.append(node)
        read.update(node.input)
        for body in bodies_of(node):
            read.update(mentioned_names(body))
    return kept[::-1]


_REWRITES: dict[Op, Rewrite] = {
    ("com.microsoft", "BiasGelu"): _gelu,
    ("com.microsoft", "DequantizeLinear"): _quantisation,
    ("com.microsoft", "FastGelu"): _fast_gelu,
    ("com.microsoft", "FusedConv"): _fused_conv,
    ("com.microsoft", "FusedGemm"): _fused_gemm,
    ("com.microsoft", "FusedMatMul"): _fused_matmul,
    ("com.microsoft", "Gelu"): _gelu,
    ("com.microsoft", "QGemm"): _quantised_gemm,
    ("com.microsoft", "QLinearAdd"): _quantised("Add", 2),
    ("com.microsoft", "QLinearAveragePool"): _quantised("AveragePool"),
    ("com.microsoft", "QLinearConcat"): _quantised_concat,
    ("com.microsoft", "QLinearGlobalAveragePool"): _quantised("GlobalAveragePool"),
    ("com.microsoft", "QLinearLeakyRelu"): _quantised("LeakyRelu"),
    ("com.microsoft", "QLinearMul"): _quantised("Mul", 2),
    ("com.microsoft", "QLinearSigmoid"): _quantised("Sigmoid"),
    ("com.microsoft", "QLinearSoftmax"): _quantised_softmax,
    ("com.microsoft", "QuantizeLinear"): _quantisation,
    ("com.microsoft", "QuickGelu"): _quick_gelu,
    ("com.microsoft", "SkipLayerNormalization"): _skip_layer_norm,
    ("", "ConcatFromSequence"): _concat_from_sequence,
    ("", "If"): known_branch,
    ("", "Loop"): known_rounds,
    ("", "SequenceAt"): _sequence_at,
}
