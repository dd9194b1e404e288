"""A stored vector that several layers read through one chain of conversions gets a chain for each of them.

Exporters and quantisers store equal vectors once (the zero biases of every layer, say) and convert them once. Channels
of unrelated layers would have to be cut alike. A vector that is read directly needs no copy: each use of a constant
has labels of its own.
"""

import math
from collections import Counter

import onnx

from worker.engine.graph.onnx_graph import OnnxGraph

_CONVERTING = frozenset(["Cast", "DequantizeLinear", "Identity", "QuantizeLinear"])


def with_own_vectors(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the conversions of shared vectors repeated, or the model itself where there are none."""
    graph = OnnxGraph(model)
    shared = _shared(graph)
    if not shared:
        return model
    taken = {*graph.constants, *graph.producer, *(value.name for value in graph.inputs)}
    nodes: list[onnx.NodeProto] = []
    uses: Counter[str] = Counter()
    # Readers first: a conversion that is repeated then counts as several readers of what it converts.
    for index in reversed(range(len(graph.nodes))):
        if graph.scope[index]:
            continue
        original = graph.nodes[index]
        copies = max(1, uses[original.output[0]]) if index in shared else 1
        for number in reversed(range(copies)):
            node = onnx.NodeProto()
            node.CopyFrom(original)
            if number:
                node.name = f"{node.name}_{number}" if node.name else ""
                node.output[0] = _copy(node.output[0], number, taken)
            _read_own(graph, node, shared, uses, taken)
            nodes.append(node)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(reversed(nodes))
    return result


def _read_own(graph: OnnxGraph, node: onnx.NodeProto, shared: set[int], uses: Counter[str], taken: set[str]) -> None:
    for position, name in enumerate(node.input):
        if graph.producer.get(name) in shared:
            node.input[position] = _copy(name, uses[name], taken)
            uses[name] += 1


def _copy(name: str, number: int, taken: set[str]) -> str:
    """The name of a conversion's result for its reader `number`. The first keeps the original's."""
    if not number:
        return name
    copy = f"{name}_for_{number}"
    while copy in taken:
        copy += "_"
    return copy


def _shared(graph: OnnxGraph) -> set[int]:
    """Conversions of stored vectors in the main graph, where one of them has several readers."""
    vectors = {name for name, t in graph.constants.items() if sum(d > 1 for d in t.dims) == 1 and math.prod(t.dims) > 1}
    known = set(graph.constants)
    in_bodies = {name for index, node in enumerate(graph.nodes) if graph.scope[index] for name in node.input} | {
        name for _, name in graph.captured()
    }
    found: set[int] = set()
    several = False
    for index, node in enumerate(graph.nodes):
        if graph.scope[index] or node.op_type not in _CONVERTING or node.domain not in ("", "ai.onnx"):
            continue
        name = node.output[0]
        if node.input[0] in vectors and known.issuperset(n for n in node.input if n):
            vectors.add(name)
            known.add(name)
            if name not in graph.outputs and name not in in_bodies:
                found.add(index)
                several |= len(graph.consumers.get(name, ())) > 1
    return found if several else set()
