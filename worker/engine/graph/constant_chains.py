"""Weights that are computed from constants (standardised, normalised, factored) evaluated once, before the analysis.

A chain that only moves or converts values (Transpose, Reshape, Cast, DequantizeLinear) is followed by the labels and
stays as it is. A chain that computes with them, such as weight standardisation, mixes the channels of the weight, so
that no channel could be removed: its result is what the layer uses, and takes its place.
"""

import numpy as np
import onnx
from onnx import numpy_helper

from worker.engine.graph.onnx_graph import RANDOM_OPS, Array, OnnxGraph, bodies_of
from worker.engine.graph.runtime import RUNTIME_ERRORS, Session

_MOVING = frozenset(
    [
        *("Cast", "CastLike", "Constant", "DequantizeLinear", "Expand", "Flatten", "Gather", "Identity"),
        *("QuantizeLinear", "Reshape", "Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
    ]
)


def with_computed_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with computed weights as initializers, or the model itself where there are none."""
    graph = OnnxGraph(model)
    static = _static_nodes(graph)
    boundary = _boundary(graph, static)
    if not boundary:
        return model
    try:
        values = _evaluate(graph, static, boundary)
    except RUNTIME_ERRORS:
        return model  # the weights stay as they are, and their channels with them
    # A computed scalar, such as an attention's scale, has no channels.
    weights = {name: value for name, value in zip(boundary, values, strict=True) if value.size > 1}
    return _replaced(graph, weights) if weights else model


def constant_value(graph: OnnxGraph, name: str) -> Array | None:
    """A tensor that follows from constants alone; None where it does not, or where the runtime cannot compute it."""
    if name in graph.constants:
        return graph.array(name)
    chain: set[int] = set()
    stack = [name]
    while stack:
        each = stack.pop()
        if not each or each in graph.constants:
            continue
        index = graph.producer.get(each)
        if index is None or not _follows(graph, index):
            return None
        if index not in chain:
            chain.add(index)
            stack.extend(graph.nodes[index].input)
    try:
        return _evaluate(graph, chain, [name])[0]
    except RUNTIME_ERRORS:
        return None


def _replaced(graph: OnnxGraph, weights: dict[str, Array]) -> onnx.ModelProto:
    folded = onnx.ModelProto()
    folded.CopyFrom(graph.model)
    needed = _needed(graph, set(weights))
    nodes = [node for index, node in enumerate(graph.nodes) if index in needed and graph.scope[index] == 0]
    del folded.graph.node[:]
    folded.graph.node.extend(nodes)
    read = {name for node in graph.nodes for name in node.input}
    still_read = {n for node in nodes for n in (*node.input, *_inner_names(node))} | set(graph.outputs)
    kept = [t for t in graph.proto.initializer if t.name in still_read or t.name not in read]
    del folded.graph.initializer[:]
    folded.graph.initializer.extend([*kept, *(numpy_helper.from_array(v, name) for name, v in weights.items())])
    return folded


def _static_nodes(graph: OnnxGraph) -> set[int]:
    """Nodes of the main graph that follow from constants alone."""
    known = set(graph.constants)
    static: set[int] = set()
    for index, node in enumerate(graph.nodes):
        if _follows(graph, index) and all(name in known for name in node.input if name):
            static.add(index)
            known.update(node.output)
    return static


def _follows(graph: OnnxGraph, index: int) -> bool:
    """Whether a node's results follow from its inputs alone."""
    node = graph.nodes[index]
    return not (node.op_type in RANDOM_OPS or bodies_of(node) or graph.scope[index]) and any(node.input)


def _boundary(graph: OnnxGraph, static: set[int]) -> list[str]:
    """Results of computing chains that layers read."""
    computing: set[str] = set()
    for index in sorted(static):
        node = graph.nodes[index]
        if node.op_type not in _MOVING or any(name in computing for name in node.input):
            computing.update(name for name in node.output if name)
    outside = {name: [i for i, _ in users if i not in static] for name, users in graph.consumers.items()}
    weights = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "BatchNormalization", "Add", "Mul")
    return [
        name
        for index in sorted(static)
        for name in graph.nodes[index].output
        if name in computing and any(graph.nodes[i].op_type in weights for i in outside.get(name, ()))
    ]


def _evaluate(graph: OnnxGraph, static: set[int], wanted: list[str]) -> list[Array]:
    model = onnx.ModelProto(ir_version=max(graph.model.ir_version, 4))
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = "weights"
    nodes = [graph.nodes[index] for index in sorted(static)]
    read = {name for node in nodes for name in node.input}
    model.graph.node.extend([n for n in graph.nodes if n.op_type == "Constant" and n.output[0] in read])
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(t for t in graph.proto.initializer if t.name in read)
    for name in wanted:
        model.graph.output.add().name = name
    return [np.asarray(value) for value in Session(model, optimised=False).run({})]


def _needed(graph: OnnxGraph, given: set[str]) -> set[int]:
    """Nodes that the outputs still depend on when the tensors `given` need no computing."""
    needed: set[int] = set()
    stack = [*graph.outputs, *(name for node in graph.nodes if bodies_of(node) for name in _inner_names(node))]
    seen: set[str] = set()
    while stack:
        name = stack.pop()
        if name in given or name in seen or name not in graph.producer:
            continue
        seen.add(name)
        index = graph.producer[name]
        if index not in needed:
            needed.add(index)
            stack.extend([*graph.nodes[index].input, *_inner_names(graph.nodes[index])])
    return needed


def _inner_names(node: onnx.NodeProto) -> list[str]:
    return [name for body in bodies_of(node) for inner in body.node for name in (*inner.input, *_inner_names(inner))]
