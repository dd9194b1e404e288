"""From labels to groups: what can be pruned in a model, what cannot and why, and what any choice would cost."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx

import worker.engine.graph.rules  # noqa: F401  (fills the registry)
from worker.engine.errors import EngineError
from worker.engine.graph.constant_chains import with_computed_weights
from worker.engine.graph.facts import Facts, observe
from worker.engine.graph.labels import Dim, Labels
from worker.engine.graph.onnx_graph import OnnxGraph, node_label
from worker.engine.graph.propagation import Propagation, Slot, Source
from worker.engine.graph.shared_vectors import with_own_vectors
from worker.engine.graph.standard_ops import with_standard_ops
from worker.engine.graph.stored_weights import with_initializers

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

LAYER_OPS = frozenset(
    [
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"),
        *("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "Einsum", "Attention", "LSTM", "GRU", "RNN"),
    ]
)
_INDEX_TYPES = {
    onnx.TensorProto.INT32,
    onnx.TensorProto.INT64,
    onnx.TensorProto.UINT32,
    onnx.TensorProto.UINT64,
    onnx.TensorProto.BOOL,
    onnx.TensorProto.STRING,
}
"""Of constants that are no parameters: shapes, indices, conditions. Quantised weights have fewer bits."""


@dataclass(frozen=True)
class Group:
    """Units of channels that occur together everywhere: any of them may go, and each takes all its copies along.

    A residual stage is one group, fed by several weights: unit 3 is filter 3 of each of them.
    """

    id: int
    units: Labels
    """Roots of the label sets, one per unit."""
    sources: tuple[Source, ...]
    """The weights' axes whose slices are this group's filters."""
    width: int
    """Channels of the widest source that one unit stands for."""

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class Layer:
    """A node with weights or multiply-accumulates, as the user sees it."""

    name: str
    op: str
    channels: int
    prunable_channels: int
    groups: tuple[int, ...]
    pinned_reason: str | None
    macs: int
    params: int


@dataclass(frozen=True)
class CostTable:
    """MACs and parameters of any candidate, as products of dimensions that are linear in the kept counts.

    Dimension d has `fixed[d] + multiplicity[d] @ kept` indices, where `kept` counts the units kept of each group.
    """

    fixed: Counts  # (D,)
    multiplicity: Counts  # (D, G)
    mac_terms: tuple[tuple[int, tuple[int, ...]], ...]  # (constant, dimensions) of each product, for the whole batch
    param_terms: tuple[tuple[int, tuple[int, ...]], ...]
    batch: int

    def sizes(self, kept: Counts) -> Counts:
        """Sizes of all dimensions. kept: (G,) or (candidates, G) -> (..., D)."""
        return np.asarray(self.fixed + kept @ self.multiplicity.T)

    def macs(self, kept: Counts) -> Counts:
        """Multiply-accumulates for one sample. kept: (..., G) -> (...)."""
        return np.asarray(self._total(self._mac_plan, kept) // self.batch)

    def params(self, kept: Counts) -> Counts:
        """Weights that remain. kept: (..., G) -> (...)."""
        return np.asarray(self._total(self._param_plan, kept))

    def _total(self, plan: tuple[Counts, npt.NDArray[np.intp]], kept: Counts) -> Counts:
        constants, dims = plan
        sizes = self.sizes(kept)
        padded = np.concatenate([sizes, np.ones((*sizes.shape[:-1], 1), dtype=np.int64)], axis=-1)
        return np.asarray((padded[..., dims].prod(axis=-1) * constants).sum(axis=-1))

    @cached_property
    def _mac_plan(self) -> tuple[Counts, npt.NDArray[np.intp]]:
        return _rectangular(self.mac_terms, len(self.fixed))

    @cached_property
    def _param_plan(self) -> tuple[Counts, npt.NDArray[np.intp]]:
        return _rectangular(self.param_terms, len(self.fixed))


def _rectangular(terms: tuple[tuple[int, tuple[int, ...]], ...], one: int) -> tuple[Counts, npt.NDArray[np.intp]]:
    """Terms as arrays; shorter products are filled up with the dimension `one`, whose size is 1."""
    longest = max((len(dims) for _, dims in terms), default=1)
    constants = np.array([constant for constant, _ in terms], dtype=np.int64)
    filled = [(*dims, *[one] * (longest - len(dims))) for _, dims in terms]
    return constants, np.array(filled, dtype=np.intp).reshape(len(terms), longest)


@dataclass(frozen=True)
class Analysis:
    """What can be pruned in a model, and everything that surgery, proof and allocation need to know."""

    graph: OnnxGraph
    facts: Facts
    propagation: Propagation
    roots: Labels
    """The root of every label."""
    groups: tuple[Group, ...]
    costs: CostTable
    reasons: Mapping[int, str]
    """Root -> why its set stays."""
    slot_terms: Mapping[Slot, int]
    """Slot -> index of its parameter term."""

    @cached_property
    def full(self) -> Counts:
        """The number of units of each group: nothing pruned."""
        return np.array([len(g) for g in self.groups], dtype=np.int64)

    @cached_property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        """The groups by the layers whose filters they are: each tuple is one width that an allocation chooses. A layer
        whose channels are split up and shuffled has many groups, but one width."""
        by_sources: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for group in self.groups:
            by_sources.setdefault(tuple((s.node, s.axis) for s in group.sources), []).append(group.id)
        return tuple(tuple(groups) for groups in by_sources.values())

    @cached_property
    def macs(self) -> int:
        return int(self.costs.macs(self.full))

    @cached_property
    def params(self) -> int:
        return int(self.costs.params(self.full))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return self.layers_under(self.full)

    def layers_under(self, kept: Counts) -> tuple[Layer, ...]:
        """The layers when `kept[g]` units of each group remain."""
        from worker.engine.graph.layers import describe_layers  # which describes an Analysis, and so needs this module

        return describe_layers(self, kept)

    def without(self, units: Iterable[int], reason: str) -> "Analysis":
        """The same analysis with these units (see Group.units) pinned for a reason found later. Units keep their
        numbers, groups do not."""
        sets = self.propagation.sets.pinned(np.fromiter(units, dtype=np.int64), reason)
        return _analysis(replace(self.propagation, sets=sets))

    def labels_of_one_sample(self, name: str, axis: int) -> Labels | None:
        """The channels of one sample where an axis holds samples x channels, as in front of a blur that is the same for
        all of them: such an axis grows with the batch. None where it holds channels alone."""
        labels, batch = self.propagation.tensors[name][axis], self.facts.batch
        if labels is None or batch < 2 or len(labels) % batch or batch in self.facts.shapes[name][:axis]:
            return None
        one = labels[: len(labels) // batch]
        return one if np.array_equal(np.tile(one, batch), labels) else None

    def alive(self, kept: Mapping[int, Mask]) -> Mask:
        """For each label whether it survives when `kept[group]` units of each group do."""
        alive_roots = np.ones(len(self.roots), dtype=bool)
        for group in self.groups:
            if group.id in kept:
                alive_roots[group.units[~kept[group.id]]] = False
        return np.asarray(alive_roots[self.roots])


def analyze(model: onnx.ModelProto, *, allow_inexact: bool = False, exclude: tuple[str, ...] = ()) -> Analysis:
    """Find the groups of channels of a model that can be removed together.

    `allow_inexact` also frees channels that a LayerNormalization or a mean runs over (recorded as waived); `exclude`
    names nodes or weights whose output channels stay. Raises EngineError where the model cannot be run at all, or a
    name in `exclude` does not exist.
    """
    graph = OnnxGraph(with_own_vectors(with_computed_weights(with_initializers(with_standard_ops(model)))))
    facts = observe(graph)
    propagation = _best_propagation(graph, facts, allow_inexact)
    _exclude(propagation, exclude)
    return _analysis(propagation)


def _best_propagation(graph: OnnxGraph, facts: Facts, allow_inexact: bool) -> Propagation:
    """A reshape may keep the labels of one of several factors (the heads of an attention or their width). Where the
    first choice ends pinned, the next is tried, and kept if that frees something."""
    best = Propagation(graph, facts, allow_inexact)
    best.run()
    for _ in range(3):
        pinned = best.sets.pinned_reasons()
        failed = [s for s in best.splits if all(r in pinned for r in best.sets.find(s.labels).tolist())]
        choices = dict(best.choices)
        for split in failed:
            choices[split.node] = (choices.get(split.node, 0) + 1) % len(split.factors)
        if not failed:
            break
        other = Propagation(graph, facts, allow_inexact, choices)
        other.run()
        if _freedom(other) <= _freedom(best):
            break
        best = other
    return best


def _freedom(propagation: Propagation) -> int:
    """How many filters can go."""
    pinned = np.array(sorted(propagation.sets.pinned_reasons()), dtype=np.int64)
    return sum(int((~np.isin(propagation.sets.find(s.labels), pinned)).sum()) for s in propagation.sources)


def _exclude(propagation: Propagation, names: tuple[str, ...]) -> None:
    graph = propagation.graph
    known = {node_label(node) for node in graph.nodes} | set(graph.constants)
    for name in names:
        if name not in known:
            raise EngineError(
                "unknown_layer",
                f"The model has no node or weight named '{name}'.",
                "Take the names from the model's graph (GET /v1/models/{id}/graph).",
            )
    for source in propagation.sources:
        if source.weight in names or node_label(graph.nodes[source.node]) in names:
            propagation.sets.pin(source.labels, "excluded by the job")


def _analysis(p: Propagation) -> Analysis:
    roots = p.sets.roots()
    reasons = p.sets.pinned_reasons()
    made = np.zeros(len(roots), dtype=bool)
    for source in p.sources:
        made[roots[source.labels]] = True
    made[list(reasons)] = False
    units = np.flatnonzero(made)
    unit_of = np.full(len(roots), -1, dtype=np.int64)
    unit_of[units] = np.arange(len(units))

    dims = _Dimensions(roots, unit_of, len(units))
    mac_terms = [_term(dims, product.factors) for product in p.products]
    slot_terms: dict[Slot, int] = {}
    slots_of: dict[str, list[Slot]] = {}
    for slot in p.slots:
        slots_of.setdefault(slot[0], []).append(slot)
    param_terms: list[tuple[int, tuple[int, ...]]] = []
    for name, tensor in p.graph.constants.items():
        weighs = int(tensor.data_type not in _INDEX_TYPES)
        # A vector that several layers share counts once per distinct use: surgery may cut each use differently.
        uses: dict[tuple[bytes, ...], int] = {}
        for slot in slots_of.get(name, ()):
            labelled = p.slot_dims(slot)
            key = tuple(_units_in(dim, roots, unit_of) for dim in labelled)
            if key not in uses:
                uses[key] = len(param_terms)
                factors = [size if dim is None else dim for size, dim in zip(tensor.dims, labelled, strict=True)]
                param_terms.append(_term(dims, (weighs, *factors)))
            slot_terms[slot] = uses[key]
        if not uses:
            param_terms.append((weighs * int(np.prod(tensor.dims)), ()))
    for tensor_dims in p.tensors.values():  # sizes of activations cost nothing, but none may become empty
        for labels in tensor_dims:
            if labels is not None:
                dims.index(labels)
    groups, costs = _group(p, dims, units, unit_of, mac_terms, param_terms)
    return Analysis(p.graph, p.facts, p, roots, groups, costs, reasons, slot_terms)


def _units_in(dim: Dim, roots: Labels, unit_of: Labels) -> bytes:
    """Which unit each index belongs to; empty where all of them stay."""
    units = unit_of[roots[dim]] if dim is not None else unit_of[:0]
    return units.tobytes() if (units >= 0).any() else b""


class _Dimensions:
    """The distinct labelled dimensions, each as the number of its indices that belong to each unit."""

    def __init__(self, roots: Labels, unit_of: Labels, units: int) -> None:
        self._roots, self._unit_of, self._units = roots, unit_of, units
        self._known: dict[bytes, int] = {}
        self._seen: dict[int, int] = {}
        self.members: list[Labels] = []
        self.fixed: list[int] = []

    def index(self, labels: Labels) -> int:
        if id(labels) not in self._seen:  # most tensors pass their labels on as they are
            self._seen[id(labels)] = self._find(labels)
        return self._seen[id(labels)]

    def _find(self, labels: Labels) -> int:
        units = self._unit_of[self._roots[labels]]
        key = units.tobytes()
        if key not in self._known:
            self._known[key] = len(self.fixed)
            self.fixed.append(int((units < 0).sum()))
            self.members.append(units[units >= 0])
        return self._known[key]


def _term(dims: _Dimensions, factors: tuple[int | Labels, ...]) -> tuple[int, tuple[int, ...]]:
    constant, variable = 1, []
    for factor in factors:
        if isinstance(factor, np.ndarray):
            variable.append(dims.index(factor))
        else:
            constant *= int(factor)
    return constant, tuple(variable)


def _group(
    p: Propagation,
    dims: _Dimensions,
    units: Labels,
    unit_of: Labels,
    mac_terms: list[tuple[int, tuple[int, ...]]],
    param_terms: list[tuple[int, tuple[int, ...]]],
) -> tuple[tuple[Group, ...], CostTable]:
    """Units that occur equally often in every dimension form a group."""
    # A random weight per dimension makes the sum over a unit's occurrences its signature: equal sums, equal counts.
    weights = np.random.default_rng(0).integers(1, 2**62, len(dims.members), dtype=np.uint64)
    signature = np.zeros(len(units), dtype=np.uint64)
    for weight, members in zip(weights, dims.members, strict=True):
        np.add.at(signature, members, weight)
    _, first, group_of = np.unique(signature, return_index=True, return_inverse=True)
    order = np.argsort(first)  # groups in the order of the graph
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group_of = rank[group_of]
    sizes = np.bincount(group_of, minlength=len(order))
    multiplicity = np.zeros((len(dims.members), len(order)), dtype=np.int64)
    for d, members in enumerate(dims.members):
        occurrences = np.bincount(group_of[members], minlength=len(order))
        multiplicity[d] = occurrences // np.maximum(sizes, 1)
    sources: list[list[Source]] = [[] for _ in order]
    width = np.ones(len(order), dtype=np.int64)
    for source in p.sources:
        members = unit_of[p.sets.find(source.labels)]
        counts = np.bincount(group_of[members[members >= 0]], minlength=len(order))
        for g in np.flatnonzero(counts).tolist():
            sources[g].append(source)
            width[g] = max(width[g], counts[g] // sizes[g])
    groups = tuple(Group(g, units[group_of == g], tuple(sources[g]), int(width[g])) for g in range(len(order)))
    fixed = np.array(dims.fixed, dtype=np.int64)
    table = CostTable(fixed, multiplicity, tuple(mac_terms), tuple(param_terms), p.facts.batch)
    return groups, table
