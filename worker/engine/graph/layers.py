"""The layers of a model as the user sees them: channels, groups, costs, and why some stay."""

from collections import defaultdict

import numpy as np

from worker.engine.graph.analysis import LAYER_OPS, Analysis, Counts, Layer
from worker.engine.graph.labels import Dim
from worker.engine.graph.onnx_graph import node_label
from worker.engine.graph.propagation import Source


def describe_layers(analysis: Analysis, kept: Counts) -> tuple[Layer, ...]:
    """One row per node that has weights or multiply-accumulates, in the graph's order, when `kept[g]` units of each
    group remain. A layer's parameters are those of its own weights and biases."""
    p = analysis.propagation
    sizes = analysis.costs.sizes(kept)
    macs: defaultdict[int, int] = defaultdict(int)
    for product, (constant, dims) in zip(p.products, analysis.costs.mac_terms, strict=True):
        macs[product.node] += constant * int(np.prod(sizes[list(dims)], dtype=np.int64))
    params: defaultdict[int, int] = defaultdict(int)
    for (name, node, _), term in analysis.slot_terms.items():
        constant, dims = analysis.costs.param_terms[term]
        users = [node] if node >= 0 else [i for i, _ in analysis.graph.consumers.get(name, [])][:1]
        for user in users:
            params[user] += constant * int(np.prod(sizes[list(dims)], dtype=np.int64))
    sources = {source.node: source for source in (*p.sources, *p.unneeded)}
    return tuple(
        _layer(analysis, index, kept, macs[index] // analysis.costs.batch, params[index], sources.get(index))
        for index, node in enumerate(analysis.graph.nodes)
        if node.op_type in LAYER_OPS
    )


def _layer(analysis: Analysis, index: int, kept: Counts, macs: int, params: int, source: Source | None) -> Layer:
    node = analysis.graph.nodes[index]
    shape = analysis.facts.shapes.get(node.output[0], ())
    axis = 1 if "Conv" in node.op_type and len(shape) > 1 else -1
    if source is not None:
        labels: Dim = source.labels
    else:
        dims = analysis.propagation.tensors.get(node.output[0], [])
        labels = dims[axis] if dims else None
    if labels is None:
        channels = shape[axis] if shape else 0
        return Layer(
            node_label(node), node.op_type, channels, 0, (), _why_fixed(analysis, index, channels), macs, params
        )
    roots = analysis.roots[labels]
    counts = {g.id: int(np.isin(roots, g.units).sum()) for g in analysis.groups}
    counts = {group: count for group, count in counts.items() if count}
    prunable = sum(counts.values())
    channels = len(labels) - prunable
    for group, count in counts.items():
        channels += count * int(kept[group]) // len(analysis.groups[group])
    reason = None
    if prunable < len(labels):
        reason = next((analysis.reasons[r] for r in roots.tolist() if r in analysis.reasons), "made by no weight")
    return Layer(node_label(node), node.op_type, channels, prunable, tuple(counts), reason, macs, params)


def _why_fixed(analysis: Analysis, index: int, channels: int) -> str:
    node = analysis.graph.nodes[index]
    if channels == 1:
        return "has a single channel"
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return f"the hidden state of {node.op_type} keeps its width"
    if all(name not in analysis.propagation.static for name in node.input if name):
        return "multiplies two activations, without weights of its own"
    return "its channels follow from channels that stay"
