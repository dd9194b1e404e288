"""The convolutions whose kernels can go, and why the others keep theirs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from worker.engine.graph.analysis import Analysis
from worker.engine.graph.onnx_graph import Array, int_attribute, node_label

MIN_CHANNELS = 8
"""Convolutions that read or make fewer channels (a network's first, usually) keep all of their kernels."""


@dataclass(frozen=True)
class Target:
    """A dense convolution with a stored weight (outputs, inputs, ...) of its own."""

    node: int
    name: str
    weight: str
    shape: tuple[int, ...]

    @property
    def outputs(self) -> int:
        return self.shape[0]

    @property
    def inputs(self) -> int:
        return self.shape[1]

    @property
    def kernels(self) -> int:
        return self.outputs * self.inputs


@dataclass(frozen=True)
class Skipped:
    """A convolution that keeps its kernels, and why."""

    name: str
    reason: str


def find_targets(
    analysis: Analysis, exclude: Collection[str] = (), min_channels: int = MIN_CHANNELS
) -> tuple[list[Target], list[Skipped]]:
    """The convolutions of a model in graph order. `exclude` names nodes or weights."""
    targets: list[Target] = []
    skipped: list[Skipped] = []
    for index, node in enumerate(analysis.graph.nodes):
        if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
            continue
        name = node_label(node)
        reason = _reason(analysis, index, node, exclude, min_channels)
        if reason is not None:
            skipped.append(Skipped(name, reason))
        else:
            targets.append(Target(index, name, node.input[1], analysis.graph.shape(node.input[1])))
    return targets, skipped


def _reason(
    analysis: Analysis, index: int, node: onnx.NodeProto, exclude: Collection[str], min_channels: int
) -> str | None:
    graph, weight = analysis.graph, node.input[1]
    if node_label(node) in exclude or weight in exclude:
        return "excluded by the job"
    if graph.scope[index] != 0:
        return "stands in the body of a control-flow node"
    if weight not in graph.constants or weight in graph.producer:
        return "its weight is computed, or no initializer"
    if len(node.input) > 2 and node.input[2] and node.input[2] not in graph.constants:
        return "its bias is computed"
    if graph.constants[weight].data_type != onnx.TensorProto.FLOAT:
        return "its weight is not in float32"
    if len(graph.consumers[weight]) > 1:
        return "its weight is shared with another node"
    if int_attribute(node, "group", 1) != 1:
        return "is grouped or depthwise already"
    outputs, inputs = graph.shape(weight)[:2]
    if min(outputs, inputs) < min_channels:
        return f"has {inputs} input and {outputs} output channels; {min_channels} of each are needed"
    return None


def importance(weight: Array, criterion: str) -> Array:
    """Importance of every weight, float64: |w| (l1) or w squared (l2). Sums of it are those of kernels and filters."""
    values = weight.astype("float64")
    return abs(values) if criterion == "l1" else values * values
