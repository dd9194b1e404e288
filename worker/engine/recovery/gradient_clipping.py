"""Adaptive gradient clipping: no filter moves by more than a share of itself in a step.

Exporters fold BatchNormalization into the convolutions before it, and nothing is left that keeps activations in size
while such a network trains: it diverges at learning rates from which the network as it was would learn. Brock et al.,
"High-Performance Large-Scale Image Recognition Without Normalization", ICML 2021, arXiv 2102.06171, section 4, equation
3: the gradient of each filter is scaled so that its norm is at most a share of the filter's own. As there, the last
layers are left alone; so is every layer that a norm follows.
"""

from __future__ import annotations

import onnx
import torch

from worker.engine.graph.analysis import LAYER_OPS
from worker.engine.graph.onnx_graph import OnnxGraph
from worker.engine.recovery.layer_weights import layer_weights
from worker.engine.torch_form import TorchForm

_NORMS = frozenset(
    [
        *("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"),
        *("RMSNormalization", "LpNormalization"),
    ]
)
_BETWEEN = frozenset(
    [
        *("Add", "AveragePool", "Cast", "Concat", "DequantizeLinear", "Flatten", "Identity", "MaxPool", "Reshape"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    ]
)
"""Ops that may stand between a layer and its norm: biases, residual and dense streams that nothing but norms reads in
the end, and changes of shape."""
_NO_VALUES = frozenset(["Shape", "Size"])
"""Ops that read none of a tensor's values."""
_LEAST_NORM = 1e-3
"""Counted where a filter is smaller, or all zeros: it could not move otherwise."""


class GradientClipping:
    """The layers' weights of a form that are to be held; `share` of 0 holds none."""

    def __init__(self, form: TorchForm, share: float) -> None:
        axes = unnormalised_weights(form.model) if share else {}
        self._share = share
        self._held = [
            (form.module.get_parameter(form.parameters[name]), axis)
            for name, axis in axes.items()
            if name in form.parameters
        ]

    @torch.no_grad()
    def apply(self) -> None:
        """Scale the gradients, between the backward pass and the optimiser's step."""
        for weight, axis in self._held:
            if weight.grad is not None:
                most = self._share * _norms(weight, axis).clamp_min(_LEAST_NORM)
                tiny = torch.finfo(weight.dtype).tiny
                weight.grad.mul_((most / _norms(weight.grad, axis).clamp_min(tiny)).clamp_max(1.0))


def _norms(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Of each filter, or of all of a vector; broadcastable to the weight."""
    single = sum(size > 1 for size in weight.shape) <= 1
    axes = [a for a in range(weight.dim()) if single or a != axis % weight.dim()]
    norms: torch.Tensor = torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
    return norms


def unnormalised_weights(model: onnx.ModelProto) -> dict[str, int]:
    """The stored tensors that layers read as weights and biases, of all layers that no norm follows directly, but for
    the last ones; with the axis of their filters. A norm that reads a residual stream on its way is none where the
    stream is read without a norm at its end: what a layer adds to it stays in it."""
    graph = OnnxGraph(model)
    held: list[onnx.NodeProto] = []
    leading: set[str] = set()  # values that a layer's result depends on
    normalised: set[str] = set()
    bare = set(graph.outputs)  # values that something reads without a norm, perhaps behind sums and changes of shape
    for node in reversed(graph.nodes):
        free = bool(bare.intersection(node.output)) or normalised.isdisjoint(node.output)
        if node.op_type in LAYER_OPS and leading.intersection(node.output) and free:
            held.append(node)
        if node.op_type in LAYER_OPS or leading.intersection(node.output):
            leading.update(node.input)
        if node.op_type in _NORMS or (node.op_type in _BETWEEN and not normalised.isdisjoint(node.output)):
            normalised.update(node.input)
        if node.op_type in _BETWEEN:
            bare.update(node.input if bare.intersection(node.output) else ())
        elif node.op_type not in _NORMS | _NO_VALUES:
            bare.update(node.input)
    return layer_weights(graph, reversed(held))
