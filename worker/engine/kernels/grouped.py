"""The grouped layout: each block of output channels reads its own subset of the input channels, in plain ONNX ops.

A convolution becomes a Gather, which lays the subsets side by side, and a Conv whose `group` is the number of blocks.
(Gather and Conv per block with a Concat behind them was slower in most of what benchmarks/kernels.py measures, and
never ahead by more than the noise.) The blocks' outputs come out in another order. Where the channels' group may be
reordered that order is folded into every weight that knows them, so that nothing is left of it; elsewhere a second
Gather restores the order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from pydantic import Field

from worker.engine.graph import analyze
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.onnx_graph import Array
from worker.engine.kernels.blocks import Partition, partition
from worker.engine.kernels.layouts.registry import GRANULARITIES, KernelOptions
from worker.engine.kernels.order import ChannelOrder, Indices, reorder
from worker.engine.kernels.targets import Skipped, Target, find_targets, importance


class GroupedOptions(KernelOptions):
    blocks: int = Field(default=4, ge=2, le=64, description="Blocks of output channels, where they divide.")


MIN_BLOCK = 4
"""Output channels and inputs read per block; smaller convolutions gain nothing."""
_STEP = 8
"""What a block reads is a multiple of this, where its layer is wide enough: convolution kernels are written so."""


@dataclass(frozen=True)
class GroupedLayer:
    """One convolution in its layout. `mask` (outputs, inputs) tells the kernels that stayed, in the original order."""

    target: Target
    blocks: int
    inputs_per_block: int
    mask: npt.NDArray[np.bool_]
    importance_kept: float
    restores_order: bool
    """Whether a Gather behind the convolution puts its channels back in order."""


@dataclass(frozen=True)
class Grouped:
    """The rewritten model, what became of each convolution, and the new order of each group's units."""

    model: onnx.ModelProto
    layers: tuple[GroupedLayer, ...]
    skipped: tuple[Skipped, ...]
    orders: Mapping[int, Indices]


@GRANULARITIES.register(
    "grouped",
    title="Kernels in groups",
    summary="Each block of output channels reads its own subset of the input channels: plain ONNX that runs faster.",
    uses=("weights",),
    exactness="own",
    options=GroupedOptions,
)
def group_kernels(
    model: onnx.ModelProto,
    sparsity: float,
    *,
    blocks: int = 4,
    criterion: str = "l2",
    exclude: Collection[str] = (),
    seed: int = 0,
    fold: bool = True,
) -> Grouped:
    """Remove about `sparsity` of the kernels of every dense convolution, so that `blocks` blocks of its output channels
    (fewer where these do not divide) read the same number of inputs each. `fold=False` leaves every group in its order.
    """
    analysis = analyze(model)
    return _Layout(analysis, sparsity, blocks, criterion, exclude, seed, fold).build()


class _Layout:
    """One rewriting."""

    def __init__(
        self,
        analysis: Analysis,
        sparsity: float,
        blocks: int,
        criterion: str,
        exclude: Collection[str],
        seed: int,
        fold: bool,
    ) -> None:
        self._analysis, self._sparsity, self._criterion, self._seed = analysis, sparsity, criterion, seed
        self._places = ChannelOrder(analysis)
        self._fold = fold
        self._made = {source.node: source.labels for source in analysis.propagation.sources}
        targets, self._skipped = find_targets(analysis, exclude)
        self._targets: list[Target] = []
        self._blocks: dict[int, int] = {}
        for target in targets:
            count = _blocks(target.outputs, blocks)
            if count is None or self._reads(target) >= target.inputs:
                self._skipped.append(Skipped(target.name, "is too narrow to be divided into blocks"))
            else:
                self._targets.append(target)
                self._blocks[target.node] = count
        self._partitions: dict[int, tuple[Partition, int]] = {}  # node -> its coupled partition, its place in it
        self._orders: dict[int, Indices] = {}

    def build(self) -> Grouped:
        for group, targets in self._coupled():
            weights = [importance(self._weight(t), self._criterion) for t in targets]
            kernels = [w.sum(axis=tuple(range(2, w.ndim))) for w in weights]
            reads = [self._reads(t) for t in targets]
            found = partition(kernels, reads, self._blocks[targets[0].node], self._seed)
            self._partitions.update({t.node: (found, place) for place, t in enumerate(targets)})
            if group is not None:
                self._orders[group] = np.argsort(found.block_of, kind="stable")
        layers = {target.node: self._layer(target) for target in self._targets}
        return Grouped(self._rewritten(layers), tuple(layers.values()), tuple(self._skipped), self._orders)

    def _coupled(self) -> list[tuple[int | None, list[Target]]]:
        """The targets that make the same movable group of channels share their blocks; any other has its own."""
        shared: dict[int, list[Target]] = {}
        alone: list[tuple[int | None, list[Target]]] = []
        for target in self._targets:
            group = self._group(target) if self._fold else None
            if group is None or group not in self._places.movable:
                alone.append((None, [target]))
            else:
                shared.setdefault(group, []).append(target)
        return [*shared.items(), *alone]

    def _weight(self, target: Target) -> Array:
        return self._analysis.graph.array(target.weight)

    def _reads(self, target: Target) -> int:
        """Input channels that each block of a layer reads."""
        kept = target.inputs * (1 - self._sparsity)
        step = _STEP if target.inputs >= 4 * _STEP else 1
        return max(round(kept / step) * step, min(MIN_BLOCK, target.inputs))

    def _layer(self, target: Target) -> GroupedLayer:
        found, place = self._partitions[target.node]
        mask = np.zeros((target.outputs, target.inputs), dtype=bool)
        for block, channels in enumerate(found.inputs[place]):
            mask[np.ix_(found.block_of == block, channels)] = True
        weights = importance(self._weight(target), self._criterion)
        kernels = weights.sum(axis=tuple(range(2, weights.ndim)))
        return GroupedLayer(
            target=target,
            blocks=self._blocks[target.node],
            inputs_per_block=self._reads(target),
            mask=mask,
            importance_kept=float(kernels[mask].sum() / max(kernels.sum(), 1e-300)),
            restores_order=self._way_back(target) is not None,
        )

    def _group(self, target: Target) -> int | None:
        return self._places.group(self._made.get(target.node))

    def _rewritten(self, layers: Mapping[int, GroupedLayer]) -> onnx.ModelProto:
        graph = self._analysis.graph
        ordered = reorder(self._analysis, self._orders)
        replaced, added = dict(ordered.replaced), dict(ordered.added)

        def edit(index: int, copy: onnx.NodeProto, nodes: list[onnx.NodeProto]) -> None:
            for position in range(len(copy.input)):
                copy.input[position] = ordered.renamed.get((index, position), copy.input[position])
            before: list[onnx.NodeProto] = []
            after: list[onnx.NodeProto] = []
            if index in layers:
                before, after = self._divide(layers[index], copy, replaced, added)
            nodes.extend([*before, copy, *after])

        nodes = graph.rebuild(edit)
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        for tensor in model.graph.initializer:
            if tensor.name in replaced:
                tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(replaced[tensor.name]), tensor.name))
        model.graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in added.items()
        )
        # Weights that are inputs too are declared with their shapes, and torch's exporter declares all of them.
        for value in (*model.graph.input, *model.graph.value_info):
            if value.name in replaced and value.type.tensor_type.HasField("shape"):
                for dim, size in zip(value.type.tensor_type.shape.dim, replaced[value.name].shape, strict=True):
                    dim.dim_value = size
        model.ir_version = max(model.ir_version, 4)  # the added ones are no inputs
        return model

    def _divide(
        self, layer: GroupedLayer, conv: onnx.NodeProto, replaced: dict[str, Array], added: dict[str, Array]
    ) -> tuple[list[onnx.NodeProto], list[onnx.NodeProto]]:
        """Turn the copy of a convolution into its blocks; the nodes that go before and behind it."""
        target = layer.target
        found, place = self._partitions[target.node]
        rows = np.argsort(found.block_of, kind="stable")  # filters, block by block
        columns = self._input_order(target)
        place_of = np.argsort(columns)  # where each input channel stands now
        reads = [np.sort(place_of[channels]) for channels in found.inputs[place]]
        size = target.outputs // layer.blocks
        whole = self._weight(target)
        parts = [
            whole[rows[block * size : (block + 1) * size]][:, columns[channels]] for block, channels in enumerate(reads)
        ]
        replaced[target.weight] = np.concatenate(parts)
        before = self._gather(conv, 0, np.concatenate(reads), f"{target.weight}/reads", added)
        kept = [a for a in conv.attribute if a.name != "group"]
        del conv.attribute[:]
        conv.attribute.extend([*kept, onnx.helper.make_attribute("group", layer.blocks)])
        order = self._way_back(target)
        if order is None:
            return before, []
        if len(conv.input) > 2 and conv.input[2]:
            bias = f"{target.weight}/bias"
            added[bias] = self._analysis.graph.array(self._analysis.graph.nodes[target.node].input[2])[rows]
            conv.input[2] = bias
        result, conv.output[0] = conv.output[0], f"{conv.output[0]}/blocks"
        added[f"{target.weight}/order"] = order
        back = onnx.helper.make_node(
            "Gather", [conv.output[0], f"{target.weight}/order"], [result], f"{result}/order", axis=1
        )
        return before, [back]

    def _gather(
        self, conv: onnx.NodeProto, position: int, indices: Indices, name: str, added: dict[str, Array]
    ) -> list[onnx.NodeProto]:
        if np.array_equal(indices, np.arange(self._analysis.facts.shapes[conv.input[0]][1])):
            return []  # the blocks read the channels one after the other, as they stand
        added[name] = indices.astype(np.int64)
        gathered = f"{conv.output[0]}/reads"
        node = onnx.helper.make_node("Gather", [conv.input[position], name], [gathered], f"{gathered}_gather", axis=1)
        conv.input[position] = gathered
        return [node]

    def _input_order(self, target: Target) -> Indices:
        """The input channels of a layer in the order in which they stand in the rewritten model."""
        return self._order(self._analysis.graph.nodes[target.node].input[0], target.inputs)

    def _way_back(self, target: Target) -> Indices | None:
        """Which of the blocks' outputs stands where in the order that the rest expects; None where all do already."""
        place_of = np.argsort(np.argsort(self._partitions[target.node][0].block_of, kind="stable"))
        back = place_of[self._order(self._analysis.graph.nodes[target.node].output[0], target.outputs)]
        return None if np.array_equal(back, np.arange(target.outputs)) else back

    def _order(self, tensor: str, channels: int) -> Indices:
        moved = self._places.indices(self._analysis.propagation.tensors[tensor][1], self._orders)
        return np.arange(channels, dtype=np.int64) if moved is None else moved


def _blocks(outputs: int, wanted: int) -> int | None:
    """The most blocks, up to `wanted`, that divide the output channels and are not too narrow."""
    fitting = [n for n in range(2, wanted + 1) if outputs % n == 0 and outputs // n >= MIN_BLOCK]
    return max(fitting, default=None)
