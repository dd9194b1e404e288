"""Where the channels of a width can be watched: in front of the layers that read them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from worker.engine.criteria.width import Width
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.labels import Labels

_SAME_CHANNELS = frozenset(
    [
        *("Identity", "Dropout", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "ReduceMean"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
    ]
)
"""Ops behind which a channel is still the feature map that was made in front of them, pooled or laid out anew."""


@dataclass(frozen=True)
class Place:
    """An axis of an activation whose indices are channels of a width."""

    tensor: str
    axis: int
    labels: Labels


def feature_maps(width: Width) -> list[Place]:
    """The width's feature maps as the layers that read them see them (after normalisation and non-linearity), each
    tensor once; pooling and flattening in between are left out."""
    found: dict[str, Place] = {}
    for contraction in width.analysis.propagation.contractions:
        if (width.positions(contraction.labels) >= 0).any():
            name, _ = made_by(width, width.analysis.graph.nodes[contraction.node].input[contraction.position])
            place = place_of(width, name)
            if place is not None:
                found.setdefault(place.tensor, place)
    return list(found.values())


def made_by(width: Width, name: str) -> tuple[str, list[onnx.NodeProto]]:
    """The activation itself, in front of pooling and layout, and the nodes that lead from it to this tensor."""
    graph, behind = width.analysis.graph, []
    while name in graph.producer:
        node = graph.nodes[graph.producer[name]]
        if node.op_type not in _SAME_CHANNELS or place_of(width, node.input[0]) is None:
            break
        behind.append(node)
        name = node.input[0]
    return name, behind[::-1]


def place_of(width: Width, name: str) -> Place | None:
    for axis, labels in enumerate(width.analysis.propagation.tensors.get(name, [])):
        if labels is not None and (width.positions(labels) >= 0).any() and is_exposable(width.analysis, name):
            return Place(name, axis, labels)
    return None


def is_exposable(analysis: Analysis, name: str) -> bool:
    """Whether an activation can be made an output: those inside control-flow bodies cannot."""
    graph = analysis.graph
    return name in graph.producer and graph.scope[graph.producer[name]] == 0


def every_place(widths: Iterable[Width]) -> dict[str, Place]:
    """The feature maps of all widths by tensor. A tensor of several widths (after a Concat) is one place."""
    return {place.tensor: place for width in widths for place in feature_maps(width)}
