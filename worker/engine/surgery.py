"""Surgery: the same graph with the removed channels cut out of every weight, attribute and shape constant."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from worker.engine.graph.analysis import Analysis, Counts, Mask
from worker.engine.graph.labels import Dim, Labels
from worker.engine.graph.onnx_graph import Array, bodies_of, mentioned_names
from worker.engine.graph.propagation import Slot


@dataclass(frozen=True)
class Plan:
    """Which units of each group stay. Groups that are not named stay whole."""

    kept: Mapping[int, Mask]

    def counts(self, analysis: Analysis) -> Counts:
        """The number of kept units of each group, as the cost table wants it."""
        return np.array(
            [int(self.kept[g.id].sum()) if g.id in self.kept else len(g) for g in analysis.groups], dtype=np.int64
        )


def prune(analysis: Analysis, plan: Plan) -> onnx.ModelProto:
    """A new model without the units that the plan removes. Names, metadata, opset and dynamic axes are kept; the
    original is not touched. Raises ValueError where a tensor would lose all of its channels."""
    if (analysis.costs.sizes(plan.counts(analysis)) == 0).any():
        raise ValueError("the plan leaves a tensor without channels")
    return Editor(analysis, analysis.alive(plan.kept)).pruned()


class Editor:
    """One surgery: knows which labels survive, and offers the edits that op rules ask for."""

    def __init__(self, analysis: Analysis, alive: Mask) -> None:
        self._analysis = analysis
        self._alive = alive
        self._graph = analysis.graph
        self._nodes: list[onnx.NodeProto] = []
        self._names = {name for node in self._graph.nodes for name in (node.name, *node.input, *node.output)}
        self._made: list[onnx.TensorProto] = []
        self._redeclared: set[str] = set()

    # ------------------------------------------------------------------ what survives

    def keep(self, labels: Labels) -> Mask:
        return np.asarray(self._alive[labels])

    def kept(self, labels: Labels) -> int:
        return int(self.keep(labels).sum())

    def _changed(self, dim: Dim) -> bool:
        return dim is not None and not self.keep(dim).all()

    # ------------------------------------------------------------------ the whole

    def pruned(self) -> onnx.ModelProto:
        weights = self._cut_constants()

        def edit(index: int, copy: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
            self._nodes = nodes
            nodes.append(copy)
            for position, name in enumerate(copy.input):
                copy.input[position] = weights.renamed.get((index, position), name)
            if copy.op_type == "Constant" and copy.output[0] in weights.cut:
                _set_constant(copy, weights.cut[copy.output[0]])
            for body in bodies_of(copy):
                for tensor in body.initializer:
                    if tensor.name in weights.cut:
                        tensor.CopyFrom(weights.cut[tensor.name])
            for rewrite in self._analysis.propagation.rewrites.get(index, ()):
                rewrite(self, copy)

        return self._assemble(self._graph.rebuild(edit), weights)

    def _cut_constants(self) -> "_Weights":
        """Slice each constant once per distinct use. A vector that layers with different channels share is copied,
        as the cost table counts it."""
        weights = _Weights({}, {}, [])
        versions: dict[str, dict[int, str]] = {}
        for slot, dims in self._uses():
            name, node, position = slot
            version = self._version(slot)
            known = versions.setdefault(name, {})
            if version not in known:
                known[version] = name if not known else self._fresh_name(name)
                masks = [None if dim is None else self.keep(dim) for dim in dims]
                if known[version] != name or any(self._changed(dim) for dim in dims):
                    weights.add(name, known[version], _take(self._graph.array(name), masks))
            if known[version] != name and node >= 0:
                weights.renamed[(node, position)] = known[version]
        return weights

    def _uses(self) -> Iterator[tuple[Slot, list[Dim]]]:
        """Each use of a constant with its labels, first those that no rule has labelled: they keep the whole."""
        p = self._analysis.propagation
        for name in dict.fromkeys(name for name, node, _ in p.slots if node >= 0):
            for node, position in self._graph.consumers.get(name, []):
                if (name, node, position) not in p.slots:
                    yield (name, node, position), [None] * len(self._graph.shape(name))
        for slot in p.slots:
            yield slot, p.slot_dims(slot)

    def _version(self, slot: Slot) -> int:
        """Uses with the same units share a version of the constant; -1 is the version that stays whole."""
        costs, term = self._analysis.costs, self._analysis.slot_terms.get(slot)
        if term is None or not costs.multiplicity[list(costs.param_terms[term][1])].any():
            return -1
        return term

    def _assemble(self, nodes: list[onnx.NodeProto], weights: "_Weights") -> onnx.ModelProto:
        source = self._graph.model
        model = onnx.ModelProto()
        for field, value in source.ListFields():
            if field.name == "graph":
                continue
            if field.is_repeated:
                getattr(model, field.name).extend(value)
            else:
                setattr(model, field.name, value)
        graph = model.graph
        for field, value in source.graph.ListFields():
            if field.name in ("node", "initializer", "value_info", "input", "output"):
                continue
            if field.is_repeated:
                getattr(graph, field.name).extend(value)
            else:
                setattr(graph, field.name, value)
        graph.node.extend(nodes)
        graph.input.extend(source.graph.input)
        graph.output.extend(source.graph.output)
        # Shapes in whose place nodes read one of their own now: ONNX Runtime warns of them at every load.
        unread = set(mentioned_names(source.graph)) - set(mentioned_names(graph)) - {v.name for v in graph.input}
        graph.initializer.extend(
            weights.cut.get(tensor.name, tensor) for tensor in source.graph.initializer if tensor.name not in unread
        )
        graph.initializer.extend([*weights.copies, *self._made])
        graph.value_info.extend(v for v in source.graph.value_info if v.name not in self._redeclared | unread)
        self._resize_declarations(graph, weights)
        if source.ir_version < 4:  # before version 4 every initializer had to be a graph input as well
            for tensor in (*weights.copies, *self._made):
                graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        return model

    def _resize_declarations(self, graph: onnx.GraphProto, weights: "_Weights") -> None:
        """Declared shapes of inner tensors and of initializers that are inputs follow the cut."""
        tensors = self._analysis.propagation.tensors
        for value in (*graph.value_info, *graph.input):
            dims = value.type.tensor_type.shape.dim
            if value.name in weights.cut and value.type.tensor_type.HasField("shape"):
                for dim, size in zip(dims, weights.cut[value.name].dims, strict=True):
                    dim.dim_value = size
            for dim, labels in zip(dims, tensors.get(value.name, []), strict=False):
                if labels is None or not self._changed(labels):
                    continue
                if dim.HasField("dim_value"):
                    dim.dim_value = self.kept(labels)
                else:  # heads x samples, say: the name stood for the size before the cut
                    dim.Clear()

    # ------------------------------------------------------------------ edits for op rules

    def set_attribute(self, node: onnx.NodeProto, name: str, value: int | float | list[int]) -> None:
        self.drop_attribute(node, name)
        node.attribute.append(onnx.helper.make_attribute(name, value))

    def drop_attribute(self, node: onnx.NodeProto, name: str) -> None:
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)

    def set_input(self, node: onnx.NodeProto, position: int, value: Array) -> None:
        """Give the node an integer input of its own."""
        while len(node.input) <= position:
            node.input.append("")
        name = self._fresh_name(node.input[position] or f"{node.output[0]}_input{position}")
        self._made.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        node.input[position] = name

    def scale_input(
        self,
        node: onnx.NodeProto,
        position: int,
        dims: Sequence[Dim],
        instead: Mapping[int, tuple[int, Dim]] | None = None,
    ) -> None:
        """Scale the entries of a shape input by kept / original of the labels they stand for: right for fixed sizes
        and for sizes that contain a dynamic factor alike. `instead` gives the original size of constant entries that
        were copied from an axis with other labels."""
        instead = instead or {}
        if not any(self._changed(dim) for dim in (*dims, *(copied for _, copied in instead.values()))):
            return
        ratios = [self._ratio(dim) for dim in dims]
        multiply = np.array([kept for kept, _ in ratios], dtype=np.int64)
        divide = np.array([whole for _, whole in ratios], dtype=np.int64)
        name = node.input[position]
        known = name in self._graph.constants
        value = self._graph.array(name) if known else self._analysis.facts.values.get(name)
        if value is not None and self._follows_from_constants(name):
            sizes = value.astype(np.int64)
            for axis, (size, _) in instead.items():
                sizes[axis] = size
            self.set_input(node, position, sizes * multiply // divide)
        else:
            node.input[position] = self._scaled(name, multiply, divide)

    def keep_shape(self, node: onnx.NodeProto, dims: Sequence[Dim]) -> None:
        """Make a Shape node go on to report the original sizes of pruned dimensions."""
        changed = [axis for axis, dim in enumerate(dims) if self._changed(dim)]
        if not changed or not self._reads(node.output[0], changed, len(dims)):
            return
        ratios = [self._ratio(dim) for dim in dims]
        shape, node.output[0] = node.output[0], self._fresh_name(node.output[0])
        self._scaled(
            node.output[0],
            np.array([whole for _, whole in ratios], dtype=np.int64),
            np.array([kept for kept, _ in ratios], dtype=np.int64),
            result=shape,
        )

    def squeeze_only(self, node: onnx.NodeProto, axes: list[int], dims: Sequence[Dim]) -> None:
        """Name the axes of a Squeeze that takes all of size one, lest a dimension pruned to one vanishes too."""
        if all(dim is None or self.kept(dim) > 1 for dim in dims):
            return
        if self._graph.opset >= 13:
            self.set_input(node, 1, np.array(axes, dtype=np.int64))
        else:
            self.set_attribute(node, "axes", axes)

    def set_split(self, node: onnx.NodeProto, sizes: list[int]) -> None:
        if self._graph.opset >= 13:
            self.set_input(node, 1, np.array(sizes, dtype=np.int64))
            self.drop_attribute(node, "num_outputs")
        else:
            self.set_attribute(node, "split", sizes)

    def set_gather(self, node: onnx.NodeProto, labels: Labels, index: npt.NDArray[np.int64]) -> None:
        """Drop removed indices from a Gather and renumber the others."""
        if not self._changed(labels):
            return
        keep = self.keep(labels)
        renumbered = np.cumsum(keep) - 1
        new = renumbered[index] if index.ndim == 0 else renumbered[index[keep[index]]]
        self.set_input(node, 1, np.asarray(new, dtype=np.int64))

    def replace_by_gather(self, node: onnx.NodeProto, labels: Labels, order: Labels, axis: int) -> None:
        """Turn the node into a Gather that permutes the kept channels, where any channel goes."""
        if not self._changed(labels):
            return
        keep = self.keep(labels)
        gather = onnx.helper.make_node("Gather", [node.input[0], ""], list(node.output), node.name, axis=axis)
        node.CopyFrom(gather)
        self.set_input(node, 1, (np.cumsum(keep) - 1)[order[keep[order]]].astype(np.int64))
        self._redeclared.update(node.output)

    def replace_by_identity(self, node: onnx.NodeProto, labels: Labels) -> None:
        if self._changed(labels):
            node.CopyFrom(onnx.helper.make_node("Identity", [node.input[0]], list(node.output), node.name))
            self._redeclared.update(node.output)

    def set_index_grid(
        self, node: onnx.NodeProto, picked: Mapping[int, tuple[Labels, npt.NDArray[np.int64]]], reach: int
    ) -> None:
        """Drop removed indices from the grid of a GatherND or ScatterND and renumber the others: moved by as much as
        channels in front of them went, which is right for grids that grow with the number of samples, too."""
        for axis, (labels, index) in picked.items():
            if not self._changed(labels):
                continue
            keep = self.keep(labels)
            kept = np.flatnonzero(keep[index])
            moved = np.zeros((*[1] * axis, len(kept), *[1] * (reach - 1 - axis), reach), dtype=np.int64)
            moved[..., axis] = ((np.cumsum(keep) - 1 - np.arange(len(keep)))[index[kept]]).reshape(moved.shape[:-1])
            gathered, renumbered = (self._fresh_name(f"{node.input[1]}_{what}") for what in ("kept", "renumbered"))
            nodes = [
                onnx.helper.make_node("Gather", [node.input[1], ""], [gathered], self._fresh_name("Gather"), axis=axis),
                onnx.helper.make_node("Add", [gathered, ""], [renumbered], self._fresh_name("Add")),
            ]
            self.set_input(nodes[0], 1, kept.astype(np.int64))
            self.set_input(nodes[1], 1, moved)
            self._nodes[-1:-1] = nodes
            node.input[1] = renumbered

    def set_slice(self, node: onnx.NodeProto, picked: Mapping[int, tuple[Labels, npt.NDArray[np.int64]]]) -> None:
        """Slice bounds in the numbering of the kept channels. A stride over unevenly kept channels becomes a Gather, so
        do the channels of a Slice whose bounds are computed, of the batch size, say: those of other axes stay."""
        changed = {axis: (labels, index) for axis, (labels, index) in picked.items() if self._changed(labels)}
        if not changed:
            return
        bounds = {axis: self._bounds(labels, index) for axis, (labels, index) in changed.items()}
        computed = any(not self._follows_from_constants(node.input[i]) for i in (1, 2, 4) if _has_input(node, i))
        if computed or any(bound is None for bound in bounds.values()):
            self._slice_by_gather(node, changed)
            return
        starts, ends, axes, steps = self._slice_inputs(node)
        for i, axis in enumerate(axes):
            bound = bounds.get(axis)
            if bound is not None:
                starts[i], ends[i], steps[i] = bound[0], bound[1], 1
        self._set_slice_inputs(node, starts, ends, axes, steps)

    def _bounds(self, labels: Labels, index: npt.NDArray[np.int64]) -> tuple[int, int] | None:
        """The kept part of a slice as one range of kept channels, or None where it is none."""
        keep = self.keep(labels)
        new = (np.cumsum(keep) - 1)[index[keep[index]]]
        if len(new) and not np.array_equal(new, np.arange(new[0], new[0] + len(new))):
            return None
        return (int(new[0]), int(new[0]) + len(new)) if len(new) else (0, 0)

    def _slice_by_gather(
        self, node: onnx.NodeProto, picked: Mapping[int, tuple[Labels, npt.NDArray[np.int64]]]
    ) -> None:
        """Replace the picked axes of a Slice by Gathers in front of it, and leave it the other axes."""
        axes = self._slice_inputs(node)[2]
        data = node.input[0]
        for axis, (labels, index) in picked.items():
            keep = self.keep(labels)
            new = (np.cumsum(keep) - 1)[index[keep[index]]]
            gathered = self._fresh_name(f"{node.output[0]}_picked")
            gather = onnx.helper.make_node("Gather", [data, ""], [gathered], self._fresh_name("Gather"), axis=axis)
            self.set_input(gather, 1, np.asarray(new, dtype=np.int64))
            self._nodes.insert(len(self._nodes) - 1, gather)
            data = gathered
        rest = [i for i, axis in enumerate(axes) if axis not in picked]
        node.input[0] = data
        if rest:
            self._leave_slice_axes(node, rest)
        else:
            output = node.output[0]
            node.Clear()
            node.CopyFrom(onnx.helper.make_node("Identity", [data], [output]))

    def _leave_slice_axes(self, node: onnx.NodeProto, rest: list[int]) -> None:
        """Slice by some of its bounds only: those that are computed at run time are picked then."""
        known = self._slice_inputs(node)
        if self._graph.opset < 10:
            self._set_slice_inputs(node, *([values[i] for i in rest] for values in known))
            return
        integers = self._analysis.facts.values[node.input[1]].dtype  # of all four
        for position, values in enumerate(known, start=1):
            if _has_input(node, position) and not self._follows_from_constants(node.input[position]):
                picked = self._fresh_name(node.input[position])
                gather = onnx.helper.make_node(
                    "Gather", [node.input[position], ""], [picked], self._fresh_name("Gather")
                )
                self.set_input(gather, 1, np.array(rest, dtype=np.int64))
                self._nodes.insert(len(self._nodes) - 1, gather)
                node.input[position] = picked
            else:
                self.set_input(node, position, np.array([values[i] for i in rest], dtype=integers))

    def _slice_inputs(self, node: onnx.NodeProto) -> tuple[list[int], list[int], list[int], list[int]]:
        rank = len(self._analysis.facts.shapes[node.output[0]])
        values = self._analysis.facts.values

        def read(position: int, name: str) -> list[int] | None:
            if len(node.input) > position and node.input[position]:
                source = node.input[position]
                array = self._graph.array(source) if source in self._graph.constants else values[source]
                return [int(v) for v in array.ravel()]
            for a in node.attribute:
                if a.name == name:
                    return list(a.ints)
            return None

        starts, ends = read(1, "starts") or [], read(2, "ends") or []
        axes = read(3, "axes") or list(range(len(starts)))
        return starts, ends, [a % rank for a in axes], read(4, "steps") or [1] * len(starts)

    def _set_slice_inputs(
        self, node: onnx.NodeProto, starts: list[int], ends: list[int], axes: list[int], steps: list[int]
    ) -> None:
        if self._graph.opset < 10:
            for name, value in (("starts", starts), ("ends", ends), ("axes", axes)):
                self.set_attribute(node, name, value)
            return
        for position, value in enumerate((starts, ends, axes, steps), start=1):
            self.set_input(node, position, np.array(value, dtype=np.int64))

    def set_pads(self, node: onnx.NodeProto, padded: Mapping[int, tuple[Labels, Labels]], rank: int) -> None:
        """Correct the amounts of padded channels; other amounts may be computed at run time and stay."""
        delta = np.zeros(2 * rank, dtype=np.int64)
        for axis, (before, after) in padded.items():
            delta[axis] = self.kept(before) - len(before)
            delta[axis + rank] = self.kept(after) - len(after)
        if not delta.any():
            return
        if self._graph.opset < 11:
            pads = next(list(a.ints) for a in node.attribute if a.name == "pads")
            self.set_attribute(node, "pads", [int(v) for v in np.array(pads) + delta])
            return
        if len(node.input) > 3 and node.input[3]:
            source = node.input[3]
            axes = self._graph.array(source) if source in self._graph.constants else self._analysis.facts.values[source]
            axes = np.asarray(axes, dtype=np.int64) % rank
            delta = np.concatenate([delta[axes], delta[axes + rank]])
        name = node.input[1]
        if name in self._graph.constants:
            self.set_input(node, 1, self._graph.array(name) + delta)
        else:
            added = self._fresh_name(name)
            extra = onnx.helper.make_node("Add", [name, ""], [added], self._fresh_name("Add"))
            self.set_input(extra, 1, delta)
            self._nodes.insert(len(self._nodes) - 1, extra)
            node.input[1] = added

    def scale_result(self, node: onnx.NodeProto, averaged: Sequence[Labels]) -> None:
        """Make a mean over the kept channels the one over all of them, of which the removed ones are zero. The factor
        is no stored number, lest it count as a parameter."""
        if not any(self._changed(labels) for labels in averaged):
            return
        result, node.output[0] = node.output[0], self._fresh_name(node.output[0])
        factor = self._fresh_name(f"{result}_kept")
        share = math.prod(self.kept(labels) / len(labels) for labels in averaged)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self._analysis.facts.types[node.input[0]])
        value = numpy_helper.from_array(np.full(1, share).astype(dtype))
        constant = onnx.helper.make_node(
            "ConstantOfShape", [""], [factor], self._fresh_name("ConstantOfShape"), value=value
        )
        self.set_input(constant, 0, np.zeros(0, dtype=np.int64))
        scale = onnx.helper.make_node("Mul", [node.output[0], factor], [result], self._fresh_name("Mul"))
        self._nodes.extend([constant, scale])

    def add_zero_to_maximum(self, node: onnx.NodeProto, compared: Sequence[Labels]) -> None:
        """Have a maximum over the kept channels be one over zero, too, which is what the removed ones are."""
        if not any(self._changed(labels) for labels in compared):
            return
        result, node.output[0] = node.output[0], self._fresh_name(node.output[0])
        self._nodes.append(onnx.helper.make_node("Relu", [node.output[0]], [result], self._fresh_name("Relu")))

    # ------------------------------------------------------------------ parts of edits

    def _ratio(self, dim: Dim) -> tuple[int, int]:
        if dim is None:
            return 1, 1
        kept, whole = self.kept(dim), len(dim)
        common = math.gcd(kept, whole)
        return kept // common, whole // common

    def _follows_from_constants(self, name: str) -> bool:
        return name in self._analysis.propagation.static

    def _scaled(self, name: str, multiply: Array, divide: Array, result: str | None = None) -> str:
        """name * multiply // divide, computed in the graph: before the current node, or behind it into `result`."""
        product, quotient = self._fresh_name(f"{name}_scaled"), result or self._fresh_name(f"{name}_scaled")
        nodes = [
            onnx.helper.make_node("Mul", [name, ""], [product], self._fresh_name("Mul")),
            onnx.helper.make_node("Div", [product, ""], [quotient], self._fresh_name("Div")),
        ]
        self.set_input(nodes[0], 1, multiply)
        self.set_input(nodes[1], 1, divide)
        at = len(self._nodes) if result else len(self._nodes) - 1
        self._nodes[at:at] = nodes
        return quotient

    def _reads(self, shape: str, axes: list[int], rank: int) -> bool:
        """Whether anyone reads the entries `axes` of a shape tensor. Most chains pick the batch size alone."""
        if shape in self._graph.outputs:
            return True
        for index, _ in self._graph.consumers.get(shape, []):
            node = self._graph.nodes[index]
            entries = self._analysis.facts.values.get(node.input[1]) if node.op_type == "Gather" else None
            if entries is None or any(int(e) % rank in axes for e in entries.ravel()):
                return True
        return False

    def _fresh_name(self, stem: str) -> str:
        number = 1
        while f"{stem}_p{number}" in self._names:
            number += 1
        self._names.add(f"{stem}_p{number}")
        return f"{stem}_p{number}"


@dataclass
class _Weights:
    """Constants after the cut: those that keep their name, the copies of those cut in several ways, and who reads
    which copy."""

    cut: dict[str, onnx.TensorProto]
    renamed: dict[tuple[int, int], str]
    copies: list[onnx.TensorProto]

    def add(self, original: str, name: str, value: Array) -> None:
        tensor = numpy_helper.from_array(value, name)
        if name == original:
            self.cut[name] = tensor
        else:
            self.copies.append(tensor)


def _take(array: Array, masks: list[Mask | None]) -> Array:
    for axis, mask in enumerate(masks):
        if mask is not None and not mask.all():
            array = np.compress(mask, array, axis=axis)
    return np.ascontiguousarray(array)


def _has_input(node: onnx.NodeProto, position: int) -> bool:
    return len(node.input) > position and bool(node.input[position])


def _set_constant(node: onnx.NodeProto, tensor: onnx.TensorProto) -> None:
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("value", tensor))
