"""The layers that read the channels of a width, and what they read of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from worker.engine.criteria.patches import sampled_patches
from worker.engine.criteria.places import is_exposable
from worker.engine.criteria.width import Width
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.constant_chains import constant_value
from worker.engine.graph.labels import Labels
from worker.engine.graph.onnx_graph import int_attribute

_LAYERS = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])


@dataclass(frozen=True)
class Reader:
    """A Conv, ConvTranspose, Gemm or MatMul with constant weights that sums over channels of a width. That of a grouped
    convolution is written as the dense one that computes the same, a ConvTranspose as what it makes of one position."""

    node: int
    tensor: str
    labels: Labels
    weight: np.ndarray  # (outputs, channels, taps), float32: the graph's own where it can be
    kernel: tuple[int, ...]
    """Its sides; none of a layer that reads one position at a time."""

    @property
    def inputs(self) -> int:
        """How many values it sums over."""
        return int(self.weight[0].size)


def readers_of(width: Width) -> list[Reader]:
    found = []
    for contraction in width.analysis.propagation.contractions:
        if (width.positions(contraction.labels) >= 0).any():
            reader = reader_at(width.analysis, contraction.node, contraction.position, contraction.labels)
            if reader is not None:
                found.append(reader)
    return found


def reader_at(analysis: Analysis, node: int, position: int, labels: Labels) -> Reader | None:
    graph, proto = analysis.graph, analysis.graph.nodes[node]
    if position != 0 or proto.op_type not in _LAYERS or not is_exposable(analysis, proto.input[0]):
        return None  # ReduceL2 and the like sum over channels, too, without weights
    constant = constant_value(graph, proto.input[1])
    if constant is None:
        return None
    weight, groups = np.asarray(constant, np.float32), int_attribute(proto, "group", 1)
    if proto.op_type == "Conv":
        rows = _dense(weight.reshape(*weight.shape[:2], -1), groups)
        return Reader(node, proto.input[0], labels, rows, weight.shape[2:])
    if proto.op_type == "ConvTranspose":
        by_group = weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)  # (groups, outputs, inputs)
        rows = _dense(by_group.reshape(-1, len(weight) // groups, 1), groups)
        return Reader(node, proto.input[0], labels, rows, ())
    if weight.ndim == 2 and not int_attribute(proto, "transA", 0):
        rows = weight if int_attribute(proto, "transB", 0) else weight.T
        return Reader(node, proto.input[0], labels, rows[:, :, None], ())
    return None


def _dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """(outputs, channels of a group, taps) -> (outputs, channels, taps), zero between the groups."""
    if groups == 1:
        return weight
    outputs, channels, taps = weight.shape
    dense = np.zeros((groups, outputs // groups, groups, channels, taps), weight.dtype)
    each = np.arange(groups)
    dense[each, :, each] = weight.reshape(groups, outputs // groups, channels, taps)
    return dense.reshape(outputs, groups * channels, taps)


def seen_by(
    node: onnx.NodeProto, array: np.ndarray, reader: Reader, locations: int, rng: np.random.Generator
) -> np.ndarray:
    """What the reader multiplies with its weights at sampled positions, (samples, channels, taps)."""
    if node.op_type == "Conv":
        return sampled_patches(node, array, reader.kernel, locations, rng)
    last = np.moveaxis(array, 1, -1) if node.op_type == "ConvTranspose" else array
    rows = last.reshape(-1, last.shape[-1])
    chosen = rng.permutation(len(rows))[: locations * len(array)]
    return rows[chosen][:, :, None]
