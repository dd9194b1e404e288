"""The stored tensors that layers read as weights and biases, and along which axis their filters lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx
import torch

from worker.engine.graph.analysis import LAYER_OPS
from worker.engine.graph.onnx_graph import OnnxGraph, int_attribute, ints_attribute
from worker.engine.torch_form import TorchForm

_SHAPE_KEPT = frozenset(["Cast", "DequantizeLinear", "Identity"])
_OF_WEIGHTS = _SHAPE_KEPT | {"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


def layer_weights(graph: OnnxGraph, nodes: Iterable[onnx.NodeProto]) -> dict[str, int]:
    """Of these nodes, as far as they are layers: the tensor's name -> the axis that counts outputs."""
    found: dict[str, int] = {}
    for node in nodes:
        for position, name in enumerate(node.input if node.op_type in LAYER_OPS else ()):
            axis = _axis_of_outputs(node, position) if position < 2 else 0
            for stored, place in _stored(graph, name, axis):
                found.setdefault(stored, place)
    return found


def decayed(form: TorchForm) -> Callable[[torch.nn.Parameter], bool]:
    """Weight decay acts on matrices and kernels: not on biases and norms, nor on what else is added or multiplied, such
    as the grid and the anchors of a detector."""
    graph = OnnxGraph(form.model)
    layers = layer_weights(graph, graph.nodes)
    added = {name for node in graph.nodes if node.op_type in ("Add", "Mul", "Sum") for name in node.input} - set(layers)
    spared = {id(form.module.get_parameter(path)) for name, path in form.parameters.items() if name in added}
    return lambda parameter: sum(size > 1 for size in parameter.shape) >= 2 and id(parameter) not in spared


def _axis_of_outputs(node: onnx.NodeProto, position: int) -> int:
    """Of the weight as the layer reads it, be it the left or the right matrix of a product. Negative ones count from
    the end; 0 where the op has no one axis for it."""
    if node.op_type == "MatMul":
        return position - 2
    if node.op_type == "Gemm":
        transposed = int_attribute(node, "transA" if position == 0 else "transB", 0)
        return position if not transposed else 1 - position
    return 1 if node.op_type == "ConvTranspose" else 0


def _stored(graph: OnnxGraph, name: str, axis: int) -> Iterator[tuple[str, int]]:
    """The tensor of this name, or the one that it is computed from without the model's inputs."""
    index = graph.producer.get(name)
    if name in graph.constants:
        yield name, axis
    elif index is not None and graph.nodes[index].op_type in _OF_WEIGHTS:
        node = graph.nodes[index]
        order = ints_attribute(node, "perm")
        if node.op_type == "Transpose":
            axis = order[axis] if order else -1 - axis
        elif node.op_type not in _SHAPE_KEPT:
            axis = 0
        yield from _stored(graph, node.input[0], axis)
