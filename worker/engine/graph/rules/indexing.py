"""Ops that pick and join indices: exact index maps from inputs to outputs."""

import numpy as np

from worker.engine.graph.index_grids import grid_positions
from worker.engine.graph.labels import Dim, Labels
from worker.engine.graph.propagation import Node, Propagation, rule


@rule("Concat")
def concat(p: Propagation, node: Node) -> None:
    out_shape = p.shape(node.proto.output[0])
    axis = node.integer("axis", 1) % len(out_shape)
    positions = [i for i in range(len(node.proto.input)) if node.has(i)]
    filled = [i for i in positions if 0 not in p.shape(node.input(i))] or positions
    dims: list[Dim] = []
    for other in range(len(out_shape)):
        if other != axis:
            dims.append(_unite_axis(p, node, filled, other))
            continue
        pieces = [p.dim(node, i, axis) for i in filled]
        dims.append(_join(p, node, pieces, [p.shape(node.input(i))[axis] for i in filled]))
    p.set_output(node, dims)


def _join(p: Propagation, node: Node, pieces: list[Dim], sizes: list[int]) -> Dim:
    if all(piece is None for piece in pieces):
        return None
    whole: list[Labels] = []
    for piece, size in zip(pieces, sizes, strict=True):
        if piece is None:
            piece = p.sets.fresh(size)
            p.sets.pin(piece, f"joined by {node.op} '{node.label}' from channels that stay")
        whole.append(piece)
    return np.concatenate(whole)


def _unite_axis(p: Propagation, node: Node, positions: list[int], axis: int) -> Dim:
    ordered = sorted(positions, key=lambda i: p.is_constant(node.input(i)))
    first = p.dim(node, ordered[0], axis)
    for i in ordered[1:]:
        p.bind(node, i, axis, first, f"{node.op} '{node.label}' with channels that stay")
    return p.dim(node, ordered[0], axis) if first is not None else None


@rule("Split")
def split(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    axis = node.integer("axis", 0) % len(dims)
    outputs = [name for name in node.proto.output]
    sizes = [p.shape(name)[axis] for name in outputs]
    whole = dims[axis]
    pieces: list[Dim] = [None] * len(sizes)
    if whole is not None:
        cut = np.split(whole, np.cumsum(sizes)[:-1])
        pieces = list(cut)
        p.rewrite(node, lambda editor, copy: editor.set_split(copy, [editor.kept(piece) for piece in cut]))
    for position, piece in enumerate(pieces):
        p.set_output(node, [*dims[:axis], piece, *dims[axis + 1 :]], position)


@rule("Slice")
def slice_(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    cuts = _slice_cuts(p, node, len(dims))
    shape = p.shape(node.input(0))
    picked: dict[int, tuple[Labels, Labels]] = {}
    for axis, cut in cuts.items():
        dim = dims[axis]
        if dim is None or range(shape[axis])[cut] == range(shape[axis]):
            continue
        index = np.arange(shape[axis])[cut]
        picked[axis] = (dim, index)
        dims[axis] = dim[index]
    if picked:
        p.rewrite(node, lambda editor, copy: editor.set_slice(copy, picked))
    p.set_output(node, dims)


def _slice_cuts(p: Propagation, node: Node, rank: int) -> dict[int, slice]:
    """axis -> slice, as Python understands it."""
    if node.has(1):
        starts, ends = p.value(node, 1).ravel().tolist(), p.value(node, 2).ravel().tolist()
        axes = p.value(node, 3).ravel().tolist() if node.has(3) else list(range(len(starts)))
        steps = p.value(node, 4).ravel().tolist() if node.has(4) else [1] * len(starts)
    else:
        starts, ends = node.integers("starts") or [], node.integers("ends") or []
        axes, steps = node.integers("axes") or list(range(len(starts))), [1] * len(starts)
    shape = p.shape(node.input(0))
    cuts: dict[int, slice] = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis % rank]
        below = step < 0 and end < -size  # past the beginning, which Python spells None
        cuts[axis % rank] = slice(start, None if below else end, step)
    return cuts


@rule("Gather")
def gather(p: Propagation, node: Node) -> None:
    """data[..., indices, ...]: constant indices along a labelled axis are an exact map."""
    rank = p.rank(node, 0)
    axis = node.integer("axis", 0) % rank
    indices_rank = p.rank(node, 1)
    if p.is_constant(node.input(0)):
        p.pin_axes(node, 0, [axis], f"Gather '{node.label}' looks up rows")
    dims = p.dims(node, 0)
    picked: list[Dim] = [None] * indices_rank
    whole: Dim = dims[axis]
    if whole is not None:
        if indices_rank > 1 or node.input(1) not in p.facts.values:
            p.sets.pin(whole, f"Gather '{node.label}' picks from these channels")
        elif indices_rank == 0:
            index = int(p.value(node, 1))
            p.sets.pin(whole[index : index + 1 or None], f"Gather '{node.label}' picks this channel")
            p.rewrite(node, lambda editor, copy: editor.set_gather(copy, whole, np.array(index)))
        else:
            index_map = p.value(node, 1) % len(whole)
            picked = [whole[index_map]]
            p.rewrite(node, lambda editor, copy: editor.set_gather(copy, whole, index_map))
    p.set_output(node, [*dims[:axis], *picked, *dims[axis + 1 :]])


@rule("GatherElements")
def gather_elements(p: Propagation, node: Node) -> None:
    """The indices are as large as the result. Axes that are not picked from follow where the indices can be cut, being
    repeated along them: x.gather(1, order.unsqueeze(-1).expand(-1, -1, channels))."""
    dims, shape = p.dims(node, 0), p.shape(node.input(0))
    axis = node.integer("axis", 0) % len(dims)
    p.pin_axes(node, 0, [axis], f"{node.op} '{node.label}' indexes these channels")
    p.pin_axes(node, 1, [axis], f"{node.op} '{node.label}' indexes these channels")
    made: list[Dim] = [None] * len(dims)
    for other in set(range(len(dims))) - {axis}:
        indices = p.dim(node, 1, other)
        if p.shape(node.input(1))[other] == shape[other]:
            made[other] = p.unite(
                dims[other], indices, f"{node.op} '{node.label}' has an index for each of these channels"
            )
        else:
            p.pin_axes(node, 0, [other], f"{node.op} '{node.label}' takes the first of these channels")
            p.pin_axes(node, 1, [other], f"{node.op} '{node.label}' takes the first of these channels")
    p.set_output(node, made)


@rule("ScatterElements", "Scatter")
def scatter_elements(p: Propagation, node: Node) -> None:
    """Indices are as large as what is scattered: other axes could follow only if both could be cut."""
    for position in range(len(node.proto.input)):
        p.pin_axes(node, position, range(p.rank(node, position)), f"{node.op} '{node.label}' indexes these channels")
    p.clear_outputs(node)


@rule("GatherND")
def gather_nd(p: Propagation, node: Node) -> None:
    """Trailing axes that the indices do not reach pass through. Known indices that form a grid over the axes in front,
    as torch.export writes x[:, order], are an exact map for each of them."""
    dims = p.dims(node, 0)
    samples = node.integer("batch_dims", 0)
    reach = p.shape(node.input(1))[-1] + samples
    grid = None if samples or p.is_constant(node.input(0)) else _index_grid(p, node, reach)
    if grid is None:
        p.pin_axes(node, 0, range(reach), f"GatherND '{node.label}' indexes these channels")
        p.set_output(node, [*[None] * (p.rank(node, 1) - 1), *dims[reach:]])
        return
    picked = {axis: (dim, index) for axis, (dim, index) in enumerate(zip(dims, grid, strict=False)) if dim is not None}
    p.rewrite(node, lambda editor, copy: editor.set_index_grid(copy, picked, reach))
    for axis, (dim, index) in picked.items():
        dims[axis] = dim[index]
    p.set_output(node, dims)


@rule("ScatterND")
def scatter_nd(p: Propagation, node: Node) -> None:
    """data[indices] = updates. With known indices that form a grid over the axes in front, this is a slice written in
    place: an exact map for each of them."""
    dims = p.dims(node, 0)
    updates = p.dims(node, 2)
    reach = p.shape(node.input(1))[-1]
    grid = _index_grid(p, node, reach)
    if grid is None:
        p.pin_axes(node, 0, range(reach), f"ScatterND '{node.label}' indexes these channels")
        p.pin_axes(node, 2, range(p.rank(node, 1) - 1), f"ScatterND '{node.label}' writes these channels")
        first: list[Dim] = [None] * reach
    else:
        first = [_written(p, node, dims[axis], updates[axis], index, axis) for axis, index in enumerate(grid)]
        picked = {axis: (dim, grid[axis]) for axis, dim in enumerate(first) if dim is not None}
        p.rewrite(node, lambda editor, copy: editor.set_index_grid(copy, picked, reach))
    for axis in range(reach, len(dims)):
        why = f"ScatterND '{node.label}' writes channels that stay"
        dims[axis] = p.unite(dims[axis], updates[axis - len(dims) + len(updates)], why)
    p.set_output(node, [*first, *dims[reach:]])


def _index_grid(p: Propagation, node: Node, reach: int) -> list[Labels] | None:
    """For each indexed axis which of its positions are written, if all their combinations are; else None."""
    if p.rank(node, 1) != reach + 1:
        return None
    grid = grid_positions(p.graph, p.facts.values, p.facts.shapes, node.input(1))
    shape = p.shape(node.input(0))
    return None if grid is None else [index % size for index, size in zip(grid, shape, strict=False)]


def _written(p: Propagation, node: Node, whole: Dim, update: Dim, index: Labels, axis: int) -> Dim:
    if whole is None:
        p.sets.pin(update, f"ScatterND '{node.label}' writes channels that stay")
        return None
    if len(index) == 1:  # the one channel written is an axis of one, which carries no labels
        p.sets.pin(whole[index], f"ScatterND '{node.label}' writes this channel")
    else:
        p.bind(node, 2, axis, whole[index], f"ScatterND '{node.label}' writes channels that stay")
    return whole


@rule("Pad")
def pad(p: Propagation, node: Node) -> None:
    """Padded channels are zeros with labels of their own, which go when their partners go."""
    dims = p.dims(node, 0)
    before, after = _pads(p, node, len(dims))
    padded: dict[int, tuple[Labels, Labels, Labels]] = {}
    for axis, dim in enumerate(dims):
        if dim is None or (before[axis] == 0 and after[axis] == 0):
            continue
        if node.text("mode", "constant") != "constant" or before[axis] < 0 or after[axis] < 0:
            p.sets.pin(dim, f"Pad '{node.label}' mirrors or crops these channels")
            dims[axis] = None
            continue
        parts = (p.sets.fresh(before[axis]), dim, p.sets.fresh(after[axis]))
        padded[axis] = parts
        dims[axis] = np.concatenate(parts)
    if padded:
        named = {axis: (left, right) for axis, (left, _, right) in padded.items()}
        p.rewrite(node, lambda editor, copy: editor.set_pads(copy, named, len(dims)))
    p.set_output(node, dims)


def _pads(p: Propagation, node: Node, rank: int) -> tuple[list[int], list[int]]:
    """Padding before and after each axis, read off the shapes where the amounts are computed at run time."""
    amounts = node.integers("pads")
    if amounts is None:
        amounts = p.value(node, 1).ravel().tolist()
    axes = [int(a) % rank for a in p.value(node, 3).ravel()] if node.has(3) else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = int(amounts[i]), int(amounts[i + len(axes)])
    return before, after


@rule("Tile")
def tile(p: Propagation, node: Node) -> None:
    """Labels repeat. The copies of a single index are alike, so any of them may go with its partner."""
    dims = p.dims(node, 0)
    before, after = p.shape(node.input(0)), p.shape(node.proto.output[0])
    copies: list[Dim] = [p.sets.fresh(new) if old == 1 < new else None for old, new in zip(before, after, strict=True)]
    tiled = [None if dim is None else np.tile(dim, new // len(dim)) for dim, new in zip(dims, after, strict=True)]
    p.rewrite(node, lambda editor, copy: editor.scale_input(copy, 1, copies))
    p.set_output(node, [made if dim is None else dim for dim, made in zip(tiled, copies, strict=True)])


@rule("ReverseSequence")
def reverse_sequence(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    axes = [node.integer("time_axis", 0), node.integer("batch_axis", 1)]
    p.pin_axes(node, 0, axes, f"ReverseSequence '{node.label}'")
    p.set_output(node, [None if axis in axes else dim for axis, dim in enumerate(dims)])
