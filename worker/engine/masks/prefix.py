"""The first part of a network, which many masks may have in common: where it ends, what belongs to it, and either part
as a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from worker.engine.graph.analysis import Analysis
from worker.engine.graph.inputs import given_inputs
from worker.engine.graph.onnx_graph import bodies_of


@dataclass(frozen=True)
class Prefix:
    """Everything before `tensor`, through which alone the rest of the graph depends on the inputs."""

    tensor: str
    elem_type: int
    """Of the tensor, as ONNX counts them."""
    nodes: frozenset[int]
    groups: frozenset[int]
    """Groups of channels with a member in it; they may go on behind it."""
    macs_share: float


def longest_prefix(analysis: Analysis, most: float) -> Prefix | None:
    """The longest prefix with at most this share of the multiply-accumulates; None where there is none with any."""
    graph = analysis.graph
    if any(bodies_of(node) for node in graph.nodes):
        return None
    share = np.cumsum(_macs(analysis)) / max(analysis.macs * analysis.costs.batch, 1)
    last_use = {name: max(index for index, _ in uses) for name, uses in graph.consumers.items()}
    last_use.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    alive = {value.name for value in graph.inputs}
    found: tuple[int, str] | None = None
    for index, node in enumerate(graph.nodes):
        made = [name for name in node.output if name and name not in analysis.propagation.static]
        alive = {name for name in (*alive, *made) if last_use.get(name, -1) > index}
        if share[index] > most:
            break
        if share[index] > 0 and len(alive) == 1 and alive <= set(made):
            found = index, next(iter(alive))
    if found is None:
        return None
    end, tensor = found
    nodes = frozenset(range(end + 1))
    elem_type = analysis.facts.types.get(tensor, onnx.TensorProto.FLOAT)
    return Prefix(tensor, elem_type, nodes, _groups(analysis, nodes), float(share[end]))


def split_at(model: onnx.ModelProto, prefix: Prefix) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The model up to the end of a prefix, and from there on. Only what each part needs is in it."""
    tensor = prefix.tensor
    makers = {name: node for node in model.graph.node for name in node.output}
    first = _part(model, [tensor], makers, stop="")
    rest = _part(model, [output.name for output in model.graph.output], makers, stop=tensor)
    first.graph.input.extend(given_inputs(model))
    first.graph.output.append(onnx.ValueInfoProto(name=tensor))
    rest.graph.input.append(onnx.helper.make_tensor_value_info(tensor, prefix.elem_type, None))
    rest.graph.output.extend(model.graph.output)
    return first, rest


def _part(model: onnx.ModelProto, wanted: list[str], makers: dict[str, onnx.NodeProto], stop: str) -> onnx.ModelProto:
    needed: set[str] = set()
    pending = list(wanted)
    while pending:
        name = pending.pop()
        if name in needed or name == stop:
            continue
        needed.add(name)
        if name in makers:
            pending.extend(makers[name].input)
    part = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    part.opset_import.extend(model.opset_import)
    part.graph.name = model.graph.name
    part.graph.node.extend(node for node in model.graph.node if needed.intersection(node.output))
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    return part


def _macs(analysis: Analysis) -> np.ndarray:
    """Multiply-accumulates of each node for the whole batch."""
    sizes = analysis.costs.sizes(analysis.full)
    macs = np.zeros(len(analysis.graph.nodes))
    for product, (constant, dims) in zip(analysis.propagation.products, analysis.costs.mac_terms, strict=True):
        macs[product.node] += constant * float(np.prod(sizes[list(dims)], dtype=np.int64))
    return macs


def _groups(analysis: Analysis, nodes: frozenset[int]) -> frozenset[int]:
    p, graph = analysis.propagation, analysis.graph
    dims = [dim for index in nodes for name in graph.nodes[index].output for dim in p.tensors.get(name, [])]
    roots = [analysis.roots[dim] for dim in dims if dim is not None]
    seen = np.unique(np.concatenate(roots)) if roots else np.zeros(0, dtype=np.int64)
    return frozenset(group.id for group in analysis.groups if np.isin(group.units, seen).any())
