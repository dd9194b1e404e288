"""The layers that read the channels of a width, and what they read of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from worker.engine.criteria.patches import sampled_patches
from worker.engine.criteria.places import is_exposable
from worker.engine.criteria.width import Width
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.labels import Labels
from worker.engine.graph.onnx_graph import int_attribute


@dataclass(frozen=True)
class Reader:
    """A Conv, Gemm or MatMul with constant weights that sums over channels of a width."""

    node: int
    tensor: str
    labels: Labels
    weight: np.ndarray  # (outputs, channels, taps)
    kernel: tuple[int, ...]
    """Its sides; none of a Gemm or MatMul."""


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
    if position != 0 or proto.input[1] not in graph.constants or not is_exposable(analysis, proto.input[0]):
        return None
    weight = graph.array(proto.input[1]).astype(np.float64)
    if proto.op_type == "Conv" and int_attribute(proto, "group", 1) == 1:
        return Reader(node, proto.input[0], labels, weight.reshape(*weight.shape[:2], -1), weight.shape[2:])
    if proto.op_type in ("Gemm", "MatMul") and weight.ndim == 2 and not int_attribute(proto, "transA", 0):
        rows = weight if int_attribute(proto, "transB", 0) else weight.T
        return Reader(node, proto.input[0], labels, rows[:, :, None], ())
    return None


def seen_by(
    node: onnx.NodeProto, array: np.ndarray, reader: Reader, locations: int, rng: np.random.Generator
) -> np.ndarray:
    """What the reader multiplies with its weights at sampled positions, (samples, channels, taps)."""
    if node.op_type == "Conv":
        return sampled_patches(node, array, reader.kernel, locations, rng)
    rows = array.reshape(-1, array.shape[-1])
    chosen = rng.permutation(len(rows))[: locations * len(array)]
    return rows[chosen][:, :, None]
