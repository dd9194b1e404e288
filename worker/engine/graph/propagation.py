"""Labels carried through a graph, op by op: the context that the op rules work in, and their registry.

A rule reads the labels of its node's inputs, states which indices live or die together, sets the labels of the
outputs, and says what surgery must rewrite in the node. A node without a rule pins all that it touches.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx

from worker.engine.graph.facts import Facts
from worker.engine.graph.labels import Dim, Labels, LabelSets
from worker.engine.graph.onnx_graph import (
    RANDOM_OPS,
    Array,
    OnnxGraph,
    attribute,
    bodies_of,
    int_attribute,
    ints_attribute,
    node_label,
)

if TYPE_CHECKING:
    from worker.engine.surgery import Editor

Rule = Callable[["Propagation", "Node"], None]
Rewrite = Callable[["Editor", onnx.NodeProto], None]
Slot = tuple[str, int, int]
"""(constant, node, input position): one use of a constant. Multi-dimensional constants have one slot for all uses."""

RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register a rule for ONNX ops, by name."""

    def register(function: Rule) -> Rule:
        for op in ops:
            RULES[op] = function
        return function

    return register


class Unsupported(Exception):
    """Raised by a rule that cannot follow this node: what the node touches is pinned with the reason."""


class _Unset:
    """A constant's dimension that no rule has bound yet."""


_UNSET = _Unset()


@dataclass(frozen=True)
class Node:
    """A node at its place in the graph."""

    proto: onnx.NodeProto
    index: int

    @property
    def op(self) -> str:
        return self.proto.op_type

    @property
    def label(self) -> str:
        return node_label(self.proto)

    def has(self, position: int) -> bool:
        return len(self.proto.input) > position and self.proto.input[position] != ""

    def input(self, position: int) -> str:
        if not self.has(position):
            raise Unsupported(f"{self.op} '{self.label}' lacks its input {position}")
        name: str = self.proto.input[position]
        return name

    def integer(self, name: str, default: int) -> int:
        return int_attribute(self.proto, name, default)

    def integers(self, name: str) -> list[int] | None:
        return ints_attribute(self.proto, name)

    def number(self, name: str) -> float | None:
        value = attribute(self.proto, name)
        return None if value is None else float(value)

    def text(self, name: str, default: str) -> str:
        value = attribute(self.proto, name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True)
class Source:
    """Where channels are made: one axis of a weight, whose slices are the filters."""

    node: int
    weight: str
    axis: int
    labels: Labels


@dataclass(frozen=True)
class Contraction:
    """A sum over an activation's axis: the one way by which a channel has an effect on others."""

    node: int
    position: int
    axis: int
    labels: Labels


@dataclass(frozen=True)
class Waiver:
    """A statistic over a labelled axis: pruning changes it, so exactness holds only with the axis restricted."""

    node: int
    axis: int
    labels: Labels
    keeps_axis: bool
    affine: tuple[int, ...] = ()


@dataclass(frozen=True)
class Product:
    """The multiply-accumulates of one node for the whole batch: the product of its factors, labelled or fixed."""

    node: int
    factors: tuple[int | Labels, ...]


@dataclass(frozen=True)
class SplitChoice:
    """A reshape that cuts one labelled dimension into several, of which only one can stay labelled."""

    node: int
    factors: tuple[int, ...]
    kept: int
    labels: Labels


@dataclass
class Propagation:
    """The state of one walk through the graph."""

    graph: OnnxGraph
    facts: Facts
    allow_inexact: bool = False
    choices: dict[int, int] = field(default_factory=dict)
    sets: LabelSets = field(default_factory=LabelSets)
    tensors: dict[str, list[Dim]] = field(default_factory=dict)
    slots: dict[Slot, list[Dim | _Unset]] = field(default_factory=dict)
    static: set[str] = field(default_factory=set)
    sources: list[Source] = field(default_factory=list)
    unneeded: list[Source] = field(default_factory=list)
    """Those of nodes that no output needs."""
    contractions: list[Contraction] = field(default_factory=list)
    waivers: list[Waiver] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    splits: list[SplitChoice] = field(default_factory=list)
    shuffled: dict[int, list[Dim]] = field(default_factory=dict)
    """Labels that a channel shuffle gives its last node, found at its first."""
    rewrites: dict[int, list[Rewrite]] = field(default_factory=dict)

    def run(self) -> None:
        """Carry the labels from the inputs to the outputs."""
        self.static.update(self.graph.constants)
        for value in self.graph.inputs:
            self.tensors[value.name] = [None] * len(self.facts.sizes[value.name])
        for body in self.graph.bodies:
            for value in body.graph.input:
                self.tensors[value.name] = [None] * len(self.facts.shapes.get(value.name, ()))
        for index, proto in enumerate(self.graph.nodes):
            self._visit(Node(proto, index))
        for body in self.graph.bodies:
            owner = self.graph.nodes[body.owner]
            for value in body.graph.output:
                self._pin_tensor(value.name, f"result of a body of {owner.op_type} '{node_label(owner)}'")
        for name in self.graph.outputs:
            self._pin_tensor(name, f"graph output '{name}'")
        for proto, name in self.graph.captured():
            self._pin_tensor(name, f"used inside {proto.op_type} '{node_label(proto)}'")
        self._pin_unneeded()

    def _pin_unneeded(self) -> None:
        """Filters that no output needs stay, but for those that meet others which are needed: they go with these."""
        needed = np.concatenate([self.sets.find(source.labels) for source in self.sources] or [np.zeros(0, np.int64)])
        for source in self.unneeded:
            alone = ~np.isin(self.sets.find(source.labels), needed)
            proto = self.graph.nodes[source.node]
            self.sets.pin(source.labels[alone], f"no output of the model needs {proto.op_type} '{node_label(proto)}'")

    def _visit(self, node: Node) -> None:
        function = RULES.get(node.op) if node.proto.domain in ("", "ai.onnx") else None
        try:
            if function is None:
                raise Unsupported(f"no rule for {node.op} '{node.label}'")
            function(self, node)
        except Unsupported as reason:
            self._pin_node(node, str(reason))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            # A node that breaks the operator's specification, or one that the rule's author did not foresee: its
            # channels stay. The surgery's proof stands behind every rule that did not raise.
            self._pin_node(node, f"{node.op} '{node.label}' could not be followed ({error})")
        followed = node.op not in RANDOM_OPS and not bodies_of(node.proto)
        if followed and all(name in self.static for name in node.proto.input if name):
            self.static.update(node.proto.output)

    def _pin_node(self, node: Node, reason: str) -> None:
        self.rewrites.pop(node.index, None)
        for position in range(len(node.proto.input)):
            if node.has(position):
                self._pin_tensor(node.input(position), reason, (node.index, position))
        self.clear_outputs(node)

    def _pin_tensor(self, name: str, reason: str, use: tuple[int, int] | None = None) -> None:
        if name in self.graph.constants:
            keys = [self._slot_key(name, *use)] if use else [k for k in self.slots if k[0] == name]
            for key in keys:
                dims = self.slots.setdefault(key, [_UNSET] * len(self.graph.shape(name)))
                for axis, dim in enumerate(dims):
                    if isinstance(dim, np.ndarray):
                        self.sets.pin(dim, reason)
                    else:
                        dims[axis] = None
            return
        for activation in self.tensors.get(name, []):
            self.sets.pin(activation, reason)

    # ------------------------------------------------------------------ what a rule reads

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self.facts.shapes:
            raise Unsupported(f"the shape of '{name}' is not known")
        return self.facts.shapes[name]

    def value(self, node: Node, position: int) -> Array:
        """The value of a small integer input; Unsupported where it is computed from data."""
        name = node.input(position)
        if name in self.facts.values:
            return self.facts.values[name]
        if name in self.graph.constants:
            return self.graph.array(name)
        raise Unsupported(f"input {position} of {node.op} '{node.label}' is computed from data")

    def is_constant(self, name: str) -> bool:
        return name in self.graph.constants

    def is_used(self, name: str) -> bool:
        return name in self.graph.consumers or name in self.graph.outputs

    def is_static(self, node: Node, position: int) -> bool:
        """Whether an input follows from constants alone: a weight, perhaps behind Transpose or DequantizeLinear."""
        return node.input(position) in self.static

    def rank(self, node: Node, position: int) -> int:
        return len(self.shape(node.input(position)))

    def dim(self, node: Node, position: int, axis: int) -> Dim:
        """The labels of one axis of an input. A constant's axis that nothing has bound yet gets fresh labels."""
        name = node.input(position)
        if name not in self.graph.constants:
            dims = self.tensors[name]
            return dims[axis] if -len(dims) <= axis < len(dims) else None
        slot = self._slot(node, position)
        dim = slot[axis]
        if isinstance(dim, _Unset):
            size = self.graph.shape(name)[axis]
            dim = self.sets.fresh(size) if size > 1 and self._sliceable(name) else None
            slot[axis] = dim
        return dim

    def dims(self, node: Node, position: int) -> list[Dim]:
        return [self.dim(node, position, axis) for axis in range(self.rank(node, position))]

    # ------------------------------------------------------------------ what a rule states

    def set_output(self, node: Node, dims: Sequence[Dim], position: int = 0) -> None:
        """Label an output. Dimensions of size one carry no labels: their one index has to stay."""
        if len(node.proto.output) <= position or not node.proto.output[position]:
            return
        name = node.proto.output[position]
        shape = self.shape(name)
        if len(shape) != len(dims):
            raise Unsupported(f"{node.op} '{node.label}': rank {len(dims)} expected, {len(shape)} found")
        for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            if dim is not None and len(dim) != size:
                raise Unsupported(f"{node.op} '{node.label}': axis {axis} has {size} indices, {len(dim)} expected")
        for dim, size in zip(dims, shape, strict=True):
            if size == 1:
                self.sets.pin(dim, f"the only channel that {node.op} '{node.label}' passes on")
        self.tensors[name] = [dim if size > 1 else None for dim, size in zip(dims, shape, strict=True)]

    def clear_outputs(self, node: Node) -> None:
        for name in node.proto.output:
            if name:
                self.tensors[name] = [None] * len(self.facts.shapes.get(name, ()))

    def unite(self, a: Dim, b: Dim, reason: str) -> Dim:
        """Make two dimensions live and die together; one that cannot be pruned pins the other."""
        if a is not None and b is not None:
            if len(a) != len(b):
                raise Unsupported(f"{reason}: {len(a)} and {len(b)} channels meet")
            self.sets.unite(a, b)
            return a
        self.sets.pin(a, reason)
        self.sets.pin(b, reason)
        return None

    def bind(self, node: Node, position: int, axis: int, labels: Dim, reason: str = "") -> None:
        """Tie an axis of an input, usually a constant's, to labels. A missing input or a size of one is ignored."""
        if not node.has(position):
            return
        name = node.input(position)
        if self.shape(name)[axis] == 1:
            return
        why = reason or f"{node.op} '{node.label}'"
        if name in self.graph.constants:
            slot = self._slot(node, position)
            if isinstance(slot[axis], _Unset):
                if labels is not None and not self._sliceable(name):
                    self.sets.pin(labels, f"{why}: constant '{name}' cannot be cut")
                    labels = None
                slot[axis] = labels
                return
        self.unite(self.dim(node, position, axis), labels, why)

    def tie(self, labels: Labels, others: Iterable[Labels]) -> None:
        for other in others:
            self.sets.unite(labels, other)

    def pin_axes(self, node: Node, position: int, axes: Iterable[int], reason: str) -> None:
        if not node.has(position):
            return
        name = node.input(position)
        for axis in axes:
            if name in self.graph.constants:
                slot = self._slot(node, position)
                if isinstance(slot[axis], _Unset):
                    slot[axis] = None
                    continue
            self.sets.pin(self.dim(node, position, axis), reason)

    def source(self, node: Node, position: int, axis: int, labels: Dim) -> None:
        if labels is None:
            return
        source = Source(node.index, node.input(position), axis, labels)
        (self.sources if node.index in self.graph.needed else self.unneeded).append(source)

    def contract(self, node: Node, position: int, axis: int, labels: Dim) -> None:
        """State that the node sums over this axis. Weights need no mask: the activation that they meet has one."""
        if all(name in self.static for name in node.proto.input if name):
            self.sets.pin(labels, f"{node.op} '{node.label}' computes a weight from all of these channels")
        elif labels is not None and not self.is_static(node, position):
            self.contractions.append(Contraction(node.index, position, axis, labels))

    def waive(
        self, node: Node, axis: int, labels: Dim, *, keeps_axis: bool, affine: tuple[int, ...] = (), what: str
    ) -> None:
        """A statistic over labelled indices: pinned, or allowed with its exactness waived."""
        if labels is None:
            return
        if self.allow_inexact and not self.is_static(node, 0):
            self.waivers.append(Waiver(node.index, axis, labels, keeps_axis, affine))
        else:
            self.sets.pin(labels, f"{node.op} '{node.label}' {what} over these channels")

    def count(self, node: Node, *factors: int | Dim) -> None:
        """State the node's multiply-accumulates, over the whole batch, as a product of labelled and fixed factors.
        Nodes that no output needs have none: runtimes leave them out."""
        if node.index in self.graph.needed:
            self.products.append(Product(node.index, tuple(f for f in factors if f is not None)))

    def rewrite(self, node: Node, function: Rewrite) -> None:
        """Have surgery call `function(editor, node)` on its copy of the node."""
        self.rewrites.setdefault(node.index, []).append(function)

    # ------------------------------------------------------------------ constants

    def _slot_key(self, name: str, node: int, position: int) -> Slot:
        # A vector (bias, BatchNormalization parameter) may be shared only because its exporter deduplicated equal
        # values: each use may be cut differently. A matrix or kernel that is shared is shared on purpose.
        shape = self.graph.shape(name)
        vector = sum(size > 1 for size in shape) <= 1
        if vector and len(shape) > 1:
            vector = self._is_only_broadcast(name)
        return (name, node, position) if vector else (name, -1, -1)

    def _is_only_broadcast(self, name: str) -> bool:
        """Whether all that reads a tensor, directly or behind a copy, spreads it over another one."""
        users = [self.graph.nodes[user] for user, _ in self.graph.consumers.get(name, ())]
        return all(
            user.op_type in _BROADCASTING or (user.op_type in _COPYING and self._is_only_broadcast(user.output[0]))
            for user in users
        )

    def _slot(self, node: Node, position: int) -> list[Dim | _Unset]:
        name = node.input(position)
        key = self._slot_key(name, node.index, position)
        if key not in self.slots:
            self.slots[key] = [_UNSET] * len(self.graph.shape(name))
        return self.slots[key]

    def _sliceable(self, name: str) -> bool:
        """Whether a constant holds values per channel; 64-bit integers hold shapes and indices."""
        return self.graph.constants[name].data_type not in (onnx.TensorProto.INT64, onnx.TensorProto.STRING)

    def slot_dims(self, slot: Slot) -> list[Dim]:
        """The labels of a constant's use; None where an axis was never bound."""
        return [None if isinstance(dim, _Unset) else dim for dim in self.slots[slot]]


_BROADCASTING = frozenset(["Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "PRelu", "Sub", "Sum", "Where"])
"""Ops that read a constant like (1, C, 1, 1) as a vector over the channels."""
_COPYING = frozenset(["Cast", "DequantizeLinear", "Identity", "QuantizeLinear"])


def broadcast(p: Propagation, node: Node, positions: Iterable[int]) -> list[Dim]:
    """Labels of an elementwise result: aligned dimensions united, constants bound, size-one dimensions give way."""
    used = [i for i in positions if node.has(i)]
    shapes = {i: p.shape(node.input(i)) for i in used}
    rank = max((len(s) for s in shapes.values()), default=0)
    # Activations decide first; constants then follow what they found.
    ordered = sorted(used, key=lambda i: p.is_constant(node.input(i)))
    return [_broadcast_axis(p, node, ordered, shapes, axis - rank) for axis in range(rank)]


def _broadcast_axis(
    p: Propagation, node: Node, ordered: list[int], shapes: dict[int, tuple[int, ...]], from_end: int
) -> Dim:
    reason = f"{node.op} '{node.label}' with channels that stay"
    result: Dim = None
    decided = False
    for i in ordered:
        axis = len(shapes[i]) + from_end
        if axis < 0 or shapes[i][axis] == 1:
            continue
        if not decided:
            result, decided = p.dim(node, i, axis), True
        elif p.is_constant(node.input(i)):
            if result is None:
                p.pin_axes(node, i, [axis], reason)
            else:
                p.bind(node, i, axis, result, reason)
        else:
            result = p.unite(result, p.dim(node, i, axis), reason)
    return result
