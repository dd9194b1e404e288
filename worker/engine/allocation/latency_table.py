"""The latency of a model as a function of its widths: a table per layer, measured on this machine.

HALP (Shen et al., Structural Pruning via Latency-Saliency Knapsack, NeurIPS 2022, arXiv 2210.06659, section 3.2) keeps
such a table per layer over the number of its filters; here it has both axes, inputs and outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.graph.inputs import random_inputs, with_batch
from worker.engine.graph.labels import Dim
from worker.engine.graph.onnx_graph import attribute
from worker.engine.graph.runtime import RUNTIME_ERRORS
from worker.engine.measure.batch_size import batch_taken, does_not_run
from worker.engine.measure.layer_times import BLOCK, SET, LayerShape, layer_times
from worker.engine.measure.session import cpu_session

_CONV_SHARES = (0.0, 0.25, 0.5, 1.0)
_MATRIX_SHARES = (0.0, 1.0)  # a product with a matrix takes as long as reading the matrix does
_WHOLE_RUNS = 5
_LEAST_PART = 0.02
_CONV_ATTRIBUTES = ("auto_pad", "dilations", "kernel_shape", "output_padding", "pads", "strides")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """The width of one side of a layer: fixed + multiplicity @ (units kept of each group). It is computed in blocks,
    the last of them filled up."""

    fixed: int
    multiplicity: Counts
    whole: int
    shares: tuple[float, ...]
    block: int = BLOCK

    def size(self, kept: Counts) -> Counts:
        """(..., G) -> (...)."""
        return np.asarray(self.fixed + kept @ self.multiplicity)

    def filled(self, width: Counts | int) -> Counts:
        """The width, or each of several, with its last block filled up."""
        return np.asarray(np.minimum(-(-np.asarray(width) // self.block) * self.block, self.whole))

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """The widths at which the layer is measured."""
        if not self.multiplicity.any() or self.whole < 2:
            return (self.whole,)
        points = {int(self.filled(max(int(self.whole * share), 1))) for share in self.shares}
        return tuple(sorted(points))


@dataclass(frozen=True)
class TimedLayer:
    """A layer, its two widths, and its milliseconds at the grid of both, (inputs, outputs). `parts` are the times of 1,
    2, … blocks of outputs relative to that of a whole set of them; none where outputs come in no sets."""

    node: int
    shape: LayerShape
    inputs: Axis
    outputs: Axis
    times: Floats
    parts: tuple[float, ...] = ()

    def cost(self, kept: Counts) -> Floats:
        """Milliseconds, (..., G) -> (...): linear between the points of the grid, outputs counted in sets."""
        low_in, high_in, share_in = _between(self.inputs, kept)
        if self.shape.group == 0:
            return np.asarray((1 - share_in) * self.times[low_in, 0] + share_in * self.times[high_in, 0])
        low_out, high_out, share_out = _between(self.outputs, kept, self.parts)
        below = (1 - share_out) * self.times[low_in, low_out] + share_out * self.times[low_in, high_out]
        above = (1 - share_out) * self.times[high_in, low_out] + share_out * self.times[high_in, high_out]
        return np.asarray((1 - share_in) * below + share_in * above)


@dataclass(frozen=True)
class LatencyTable:
    """The layers' tables, and the time of everything else, which follows the number of values that layers hand on."""

    layers: tuple[TimedLayer, ...]
    rest: float
    batch: int
    threads: int
    full: Counts

    @cached_property
    def whole(self) -> float:
        """Milliseconds of the original."""
        return float(self.cost(self.full))

    def cost(self, kept: Counts) -> Floats:
        """Estimated milliseconds, (..., G) -> (...)."""
        total = np.zeros(kept.shape[:-1])
        for layer in self.layers:
            total = total + layer.cost(kept)
        return np.asarray(total + self.rest * self._handed_on(kept) / max(float(self._handed_on(self.full)), 1.0))

    def _handed_on(self, kept: Counts) -> Floats:
        weights = [np.prod(layer.shape.data) for layer in self.layers]
        outputs = [layer.outputs for layer in self.layers]
        values = [w * axis.filled(axis.size(kept)) for w, axis in zip(weights, outputs, strict=True)]
        return np.asarray(np.sum(values, axis=0), dtype=np.float64)


def measure_table(
    analysis: Analysis,
    *,
    batch: int = 1,
    threads: int = 1,
    on_progress: Callable[[float], None] = lambda share: None,
) -> LatencyTable:
    """Measure every distinct layer of the model at its grid of widths, and the whole model. A model whose batch size is
    fixed is measured at that, as its table says. Raises EngineError where the model does not run at the batch size."""
    batch = batch_taken(analysis, batch)
    found = layer_shapes(analysis, batch)
    distinct: dict[tuple[LayerShape, tuple[int, ...], tuple[int, ...]], tuple[Floats, tuple[float, ...]]] = {}
    keys = [(shape, inputs.grid, outputs.grid) for _, shape, inputs, outputs in found]
    for done, key in enumerate(keys):
        if key not in distinct:
            distinct[key] = _measured(*key, threads), _parts(*key, threads)
        on_progress((done + 1) / max(len(keys), 1))
    layers = tuple(
        TimedLayer(node, shape, inputs, outputs, *distinct[key])
        for (node, shape, inputs, outputs), key in zip(found, keys, strict=True)
    )
    table = LatencyTable(layers, 0.0, batch, threads, analysis.full)
    rest = max(_whole_model(analysis, batch, threads) - table.whole, 0.0)
    return LatencyTable(layers, rest, batch, threads, analysis.full)


def _measured(shape: LayerShape, inputs: tuple[int, ...], outputs: tuple[int, ...], threads: int) -> Floats:
    if shape.group == 0:
        pairs = [(size, size * shape.multiplier) for size in inputs]
        return np.array(layer_times(shape, pairs, threads))[:, None]
    pairs = [(i, o) for i in inputs for o in outputs]
    return np.array(layer_times(shape, pairs, threads)).reshape(len(inputs), len(outputs))


def _parts(shape: LayerShape, inputs: tuple[int, ...], outputs: tuple[int, ...], threads: int) -> tuple[float, ...]:
    """Times of 1, 2, … blocks of outputs relative to that of a set, each a little longer than the one before."""
    if shape.op != "Conv" or shape.group != 1 or len(outputs) < 2 or outputs[-1] <= SET * BLOCK:
        return ()
    pairs = [(inputs[-1], blocks * BLOCK) for blocks in range(1, SET + 1)]
    *parts, whole = layer_times(shape, pairs, threads)
    found: list[float] = []
    for number, part in enumerate(parts, start=1):
        longest = 1 - _LEAST_PART * (SET - number)
        found.append(min(max(part / whole, (found[-1] if found else 0.0) + _LEAST_PART), longest))
    return tuple(found)


def _whole_model(analysis: Analysis, batch: int, threads: int) -> float:
    """Milliseconds of the shortest run of the original."""
    graph = analysis.graph
    session = cpu_session(graph.model, threads, timed=True)
    inputs = random_inputs(graph, with_batch(graph, analysis.facts.sizes, batch), seed=0)
    times = []
    try:
        for _ in range(_WHOLE_RUNS + 1):
            start = time.perf_counter()
            session.run(None, inputs)
            times.append(time.perf_counter() - start)
    except RUNTIME_ERRORS as error:
        raise does_not_run(batch, error) from error
    return min(times[1:]) * 1000


def layer_shapes(analysis: Analysis, batch: int) -> list[tuple[int, LayerShape, Axis, Axis]]:
    """The layers that can be measured by themselves: number of the node, shape, widths of input and output."""
    found = []
    for index in sorted(analysis.graph.needed):
        node = analysis.graph.nodes[index]
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and node.domain in ("", "ai.onnx"):
            layer = _layer(analysis, index, batch)
            if layer is not None:
                found.append((index, *layer))
    return found


def _layer(analysis: Analysis, index: int, batch: int) -> tuple[LayerShape, Axis, Axis] | None:
    graph, node = analysis.graph, analysis.graph.nodes[index]
    if len(node.input) < 2 or node.input[1] not in graph.constants or node.input[0] in graph.constants:
        return None
    weight, data = graph.shape(node.input[1]), analysis.facts.shapes.get(node.input[0])
    if data is None or len(data) < 2:
        return None
    scale = batch / max(analysis.facts.batch, 1)
    leading = max(round(data[0] * scale), 1)
    labels = _labels(analysis, node.input[1])
    if node.op_type in ("Gemm", "MatMul"):
        if len(weight) != 2 or attribute(node, "transA", 0):
            return None
        swapped = bool(attribute(node, "transB", 0))
        into, out = (1, 0) if swapped else (0, 1)
        shape = LayerShape(node.op_type, (leading, *data[1:-1]))
        sides = [_axis(analysis, labels[axis], weight[axis], _MATRIX_SHARES) for axis in (into, out)]
        return shape, sides[0], sides[1]
    attributes = tuple(
        (name, value.decode() if isinstance(value, bytes) else tuple(int(v) for v in value))
        for name in _CONV_ATTRIBUTES
        if (value := attribute(node, name)) is not None
    )
    return _convolution(analysis, index, (leading, *data[2:]), attributes, labels)


def _convolution(
    analysis: Analysis,
    index: int,
    data: tuple[int, ...],
    attributes: tuple[tuple[str, tuple[int, ...] | str], ...],
    labels: Sequence[Dim],
) -> tuple[LayerShape, Axis, Axis] | None:
    node = analysis.graph.nodes[index]
    weight, group = analysis.graph.shape(node.input[1]), int(attribute(node, "group", 1))
    kernel = weight[2:]
    first, second = _axis(analysis, labels[0], weight[0]), _axis(analysis, labels[1], weight[1])
    if node.op_type == "ConvTranspose":
        return (LayerShape("ConvTranspose", data, kernel, attributes), first, second) if group == 1 else None
    if group == 1:
        return LayerShape("Conv", data, kernel, attributes), second, first
    if weight[1] != 1:  # grouped: the groups stay equal, and are computed one by one
        inputs = Axis(second.fixed * group, second.multiplicity * group, weight[1] * group, _CONV_SHARES, block=group)
        return LayerShape("Conv", data, kernel, attributes, group=group), inputs, replace(first, block=group)
    multiplier = weight[0] // group
    inputs = Axis(first.fixed // multiplier, first.multiplicity // multiplier, group, _CONV_SHARES)
    return LayerShape("Conv", data, kernel, attributes, group=0, multiplier=multiplier), inputs, first


def _labels(analysis: Analysis, name: str) -> Sequence[Dim]:
    for slot in analysis.propagation.slots:
        if slot[0] == name:
            return analysis.propagation.slot_dims(slot)
    return [None] * len(analysis.graph.shape(name))


def _axis(analysis: Analysis, labels: Dim, size: int, shares: tuple[float, ...] = _CONV_SHARES) -> Axis:
    multiplicity = np.zeros(len(analysis.groups), dtype=np.int64)
    if labels is None:
        return Axis(size, multiplicity, size, shares)
    roots = analysis.roots[labels]
    for group in analysis.groups:
        occurrences = int(np.isin(roots, group.units).sum())
        multiplicity[group.id] = occurrences // max(len(group), 1)
    fixed = size - int(multiplicity @ analysis.full)
    return Axis(fixed, multiplicity, size, shares)


def _in_sets(width: Counts, parts: tuple[float, ...]) -> Floats:
    """Widths as multiples of what a set of blocks takes; as they are where there are no sets."""
    if not parts:
        return np.asarray(width, dtype=np.float64)
    sets, left = np.divmod(-(-width // BLOCK), SET)
    return np.asarray(sets + np.array((0.0, *parts))[left])


def _between(
    axis: Axis, kept: Counts, parts: tuple[float, ...] = ()
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Positions in the grid below and above a width, and where it lies between them, 0..1."""
    grid = _in_sets(np.array(axis.grid), parts)
    filled = _in_sets(axis.filled(axis.size(kept)), parts)
    high = np.clip(np.searchsorted(grid, filled), 0, len(grid) - 1)
    low = np.maximum(high - 1, 0)
    gap = np.where(high > low, grid[high] - grid[low], 1.0)
    share = np.where(high > low, np.clip((filled - grid[low]) / gap, 0.0, 1.0), 0.0)
    return low, high, share
