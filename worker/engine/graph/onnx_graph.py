"""A read-only view of an ONNX graph: nodes, who makes and who uses each tensor, and the constants."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
"""Element types of weights and activations that are not quantised, the most usual first."""

RANDOM_OPS = frozenset(
    ["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"]
)
"""Ops whose results follow from nothing that the graph holds."""


def in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every node behind those that it reads from, as the standard asks and some converters forget."""
    nodes = _sorted(model.graph, set())
    if [list(node.output) for node in nodes] == [list(node.output) for node in model.graph.node]:
        return model
    ordered = onnx.ModelProto()
    ordered.CopyFrom(model)
    del ordered.graph.node[:]
    ordered.graph.node.extend(nodes)
    return ordered


def attribute(node: onnx.NodeProto, name: str, default: object = None) -> Any:  # noqa: ANN401  (any attribute type)
    """The value of a node's attribute, or the default."""
    for a in node.attribute:
        if a.name == name:
            return onnx.helper.get_attribute_value(a)
    return default


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return int(attribute(node, name, default))


def ints_attribute(node: onnx.NodeProto, name: str) -> list[int] | None:
    value = attribute(node, name)
    return None if value is None else [int(v) for v in value]


def node_label(node: onnx.NodeProto) -> str:
    """How a node is named to the user: its name, or its first output where it has none."""
    return node.name or next((o for o in node.output if o), node.op_type)


def bodies_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan, in the order of its attributes."""
    return [body for a in node.attribute for body in ([a.g] if a.type == a.GRAPH else a.graphs)]


def _produced_names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (t.name for t in graph.initializer)
    for node in graph.node:
        yield from (name for name in node.output if name)
        for body in bodies_of(node):
            yield from (i.name for i in body.input)
            yield from _produced_names(body)


def mentioned_names(graph: onnx.GraphProto) -> Iterator[str]:
    """What its nodes and those of bodies read, and its outputs."""
    yield from (o.name for o in graph.output)
    for node in graph.node:
        yield from node.input
        for body in bodies_of(node):
            yield from mentioned_names(body)


def captured_names(node: onnx.NodeProto) -> set[str]:
    """What the bodies of an If, Loop or Scan read of the graph around them."""
    names: set[str] = set()
    for body in bodies_of(node):
        names.update({*mentioned_names(body)} - {*_produced_names(body)} - {value.name for value in body.input})
    return names - {""}


@dataclass(frozen=True)
class Body:
    """A body of a control-flow node, whose nodes stand in the graph's list like all others."""

    owner: int
    scope: int
    graph: onnx.GraphProto


class OnnxGraph:
    """Nodes, producers, consumers and constants. Initializers, Constant nodes and initializers that are also graph
    inputs are all `constants`.

    The nodes of control-flow bodies stand in `nodes` before their owner, with `scope` telling the body apart from the
    main graph (0): ONNX names are unique across scopes, so one name space serves all. Where a file breaks that rule
    the body stays closed, and what it captures is told by `captured`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.proto = model.graph
        self.nodes: list[onnx.NodeProto] = []
        self.scope: list[int] = []
        self.bodies: list[Body] = []
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.constants: dict[str, onnx.TensorProto] = {}
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[tuple[int, int]]] = {}
        self._closed: list[onnx.NodeProto] = []
        counts = Counter(_produced_names(self.proto))
        self._enter(self.proto, 0, {name for name, count in counts.items() if count > 1})
        self.inputs = [i for i in self.proto.input if i.name not in self.constants]
        self.outputs = [o.name for o in self.proto.output]
        self._arrays: dict[str, Array] = {}

    def _enter(self, graph: onnx.GraphProto, scope: int, ambiguous: set[str]) -> None:
        self.constants.update({t.name: t for t in graph.initializer})
        for node in _sorted(graph, set(self.producer) | set(self.constants)):
            opened: list[tuple[int, onnx.GraphProto]] = []
            for body in bodies_of(node):
                if ambiguous.isdisjoint(_produced_names(body)):
                    opened.append((1 + len(self.bodies), body))
                    self.bodies.append(Body(-1, 1 + len(self.bodies), body))
                    self._enter(body, opened[-1][0], ambiguous)
                else:
                    self._closed.append(node)
            index = len(self.nodes)
            for inner, body in opened:
                self.bodies[inner - 1] = Body(index, inner, body)
            self.nodes.append(node)
            self.scope.append(scope)
            self._index(node, index)

    def _index(self, node: onnx.NodeProto, index: int) -> None:
        for name in node.output:
            if name:
                self.producer[name] = index
        for position, name in enumerate(node.input):
            if name:
                self.consumers.setdefault(name, []).append((index, position))
        if node.op_type == "Constant" and (tensor := _constant_tensor(node)) is not None:
            self.constants[node.output[0]] = tensor

    def array(self, name: str) -> Array:
        """The value of a constant. Weights are read anew each time: keeping them would hold the model twice."""
        if name in self._arrays:
            return self._arrays[name]
        value = numpy_helper.to_array(self.constants[name])
        if value.size <= 4096:
            self._arrays[name] = value
        return value

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a constant."""
        return tuple(self.constants[name].dims)

    @cached_property
    def needed(self) -> frozenset[int]:
        """The nodes that an output of the model depends on: runtimes leave the others out."""
        waiting, found = list(self.outputs), set[int]()
        while waiting:
            index = self.producer.get(waiting.pop())
            if index is not None and index not in found:
                found.add(index)
                waiting += self.nodes[index].input
                for body in bodies_of(self.nodes[index]):
                    waiting += mentioned_names(body)
        return frozenset(found)

    def captured(self) -> Iterator[tuple[onnx.NodeProto, str]]:
        """(control-flow node, name) for each outer tensor that a closed body mentions."""
        for node in self._closed:
            for body in bodies_of(node):
                for name in sorted(set(mentioned_names(body))):
                    if name in self.producer or name in self.constants:
                        yield node, name

    def rebuild(self, edit: Callable[[int, onnx.NodeProto, list[onnx.NodeProto]], None]) -> list[onnx.NodeProto]:
        """Copies of the main graph's nodes. `edit(index, copy, nodes)` is called for every node, bodies included; it
        appends the copy, and whatever belongs beside it, to `nodes`, the list of the scope in which the node stands."""
        scopes: dict[int, list[onnx.NodeProto]] = {0: []} | {body.scope: [] for body in self.bodies}
        bodies: dict[int, list[Body]] = {}
        for body in self.bodies:
            bodies.setdefault(body.owner, []).append(body)
        for index, node in enumerate(self.nodes):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            opened = {id(body.graph): body.scope for body in bodies.get(index, ())}
            for original, body_copy in zip(bodies_of(node), bodies_of(copy), strict=True):
                if id(original) in opened:
                    del body_copy.node[:], body_copy.value_info[:]
                    body_copy.node.extend(scopes[opened[id(original)]])
            edit(index, copy, scopes[self.scope[index]])
        return scopes[0]


def _sorted(graph: onnx.GraphProto, outer: set[str]) -> list[onnx.NodeProto]:
    """The nodes in an order in which each comes after those it reads from. Most files are in order already."""
    ready = outer | {""} | {i.name for i in graph.input} | {t.name for t in graph.initializer}
    ready |= {t.values.name for t in graph.sparse_initializer}
    made = {name for node in graph.node for name in node.output}
    waiting, ordered = list(graph.node), []
    while waiting:
        late: list[onnx.NodeProto] = []
        for node in waiting:
            reads = {*node.input, *(n for body in bodies_of(node) for n in mentioned_names(body))}
            if any(name in made and name not in ready for name in reads if name not in node.output):
                late.append(node)
            else:
                ordered.append(node)
                ready.update(node.output)
        if len(late) == len(waiting):  # a cycle, which ONNX Runtime will refuse
            return ordered + late
        waiting = late
    return ordered


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node, whichever attribute holds it; None for strings and sparse tensors."""
    for a in node.attribute:
        if a.name == "value":
            tensor: onnx.TensorProto = a.t
            return tensor
        if a.name in ("value_float", "value_floats"):
            value = np.array(onnx.helper.get_attribute_value(a), dtype=np.float32)
        elif a.name in ("value_int", "value_ints"):
            value = np.array(onnx.helper.get_attribute_value(a), dtype=np.int64)
        else:
            continue
        return numpy_helper.from_array(value, node.output[0])
    return None
