"""Normalisations: per channel they are exact to prune, over channels only with exactness waived."""

import numpy as np

from worker.engine.graph.propagation import Node, Propagation, Unsupported, rule


@rule("BatchNormalization")
def batch_norm(p: Propagation, node: Node) -> None:
    """Scale, bias, mean and variance are vectors over the channels."""
    dims = p.dims(node, 0)
    for position in range(1, 5):
        p.bind(node, position, 0, dims[1] if len(dims) > 1 else None)
    p.set_output(node, dims)
    for position in range(1, len(node.proto.output)):  # statistics, in training mode
        p.set_output(node, [dims[1]], position)


@rule("InstanceNormalization")
def instance_norm(p: Propagation, node: Node) -> None:
    """Each channel is normalised over its own positions: exact, unless the positions are channels of another view."""
    dims = p.dims(node, 0)
    for position in (1, 2):
        p.bind(node, position, 0, dims[1])
    for axis in range(2, len(dims)):
        p.waive(node, axis, dims[axis], keeps_axis=True, what="averages")
    p.set_output(node, dims)


@rule("GroupNormalization")
def group_norm(p: Propagation, node: Node) -> None:
    """Whole groups live and die together, which keeps every statistic; scale and bias per group before opset 21. A
    single group is a norm over all channels."""
    dims = p.dims(node, 0)
    channels, groups = dims[1], node.integer("num_groups", 1)
    if groups == 1:
        p.waive(node, 1, channels, keeps_axis=True, affine=(1, 2), what="averages")
        for position in (1, 2):
            p.bind(node, position, 0, channels)
    elif channels is not None:
        blocks = channels.reshape(groups, -1)
        for column in range(1, blocks.shape[1]):
            p.sets.unite(blocks[:, 0], blocks[:, column])
        per_group = np.ascontiguousarray(blocks[:, 0])
        for position in (1, 2):
            p.bind(node, position, 0, per_group if p.shape(node.input(position))[0] == groups else channels)
        p.rewrite(node, lambda editor, copy: editor.set_attribute(copy, "num_groups", editor.kept(per_group)))
    else:
        p.pin_axes(node, 1, [0], f"{node.op} '{node.label}'")
        p.pin_axes(node, 2, [0], f"{node.op} '{node.label}'")
    for axis in range(2, len(dims)):
        p.waive(node, axis, dims[axis], keeps_axis=True, what="averages")
    p.set_output(node, dims)


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_norm(p: Propagation, node: Node) -> None:
    """Statistics over all axes from `axis` on."""
    dims = p.dims(node, 0)
    first = node.integer("axis", -1) % len(dims)
    labelled = [axis for axis in range(first, len(dims)) if dims[axis] is not None]
    if len(labelled) > 1:
        raise Unsupported(f"{node.op} '{node.label}' averages over several labelled axes")
    affine = tuple(i for i in (1, 2) if node.has(i))
    for axis in labelled:
        p.waive(node, axis, dims[axis], keeps_axis=True, affine=affine, what="averages")
    for position in affine:
        rank = p.rank(node, position)
        for axis in range(rank):
            p.bind(node, position, axis, dims[len(dims) - rank + axis])
    p.set_output(node, dims)
    for position in (1, 2):  # mean and inverse deviation
        p.set_output(node, [*dims[:first], *[None] * (len(dims) - first)], position)


@rule("LpNormalization")
def lp_norm(p: Propagation, node: Node) -> None:
    """Division by the norm along one axis: a removed channel adds nothing to a norm, so this is exact."""
    dims = p.dims(node, 0)
    axis = node.integer("axis", -1) % len(dims)
    p.contract(node, 0, axis, dims[axis])
    p.set_output(node, dims)


@rule("MeanVarianceNormalization")
def mean_variance_norm(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    for axis in node.integers("axes") or [0, 2, 3]:
        p.waive(node, axis % len(dims), dims[axis], keeps_axis=True, what="averages")
    p.set_output(node, dims)


@rule("LRN")
def local_response_norm(p: Propagation, node: Node) -> None:
    """Neighbouring channels inhibit each other: removing one changes who is whose neighbour."""
    dims = p.dims(node, 0)
    p.waive(node, 1, dims[1], keeps_axis=True, what="sums neighbours")
    p.set_output(node, dims)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(p: Propagation, node: Node) -> None:
    """Over one axis from opset 13 on; before, over all axes from `axis` on."""
    dims = p.dims(node, 0)
    if p.graph.opset >= 13:
        axes = [node.integer("axis", -1) % len(dims)]
    else:
        axes = list(range(node.integer("axis", 1) % len(dims), len(dims)))
    p.pin_axes(node, 0, axes, f"{node.op} '{node.label}' compares these channels")
    p.set_output(node, [None if axis in axes else dim for axis, dim in enumerate(dims)])
