"""Ops that move dimensions about: reshape and its kin, transpose, expand, depth/space, shapes as data."""

import math

import numpy as np
import onnx

from worker.engine.graph.labels import Dim, Labels
from worker.engine.graph.propagation import Node, Propagation, SplitChoice, Unsupported, rule
from worker.engine.graph.rules.shuffle import shuffle_channels


@rule("Reshape")
def reshape(p: Propagation, node: Node) -> None:
    if node.index in p.shuffled:
        p.set_output(node, p.shuffled[node.index])
        return
    if shuffle_channels(p, node):
        return
    before, dims = p.dims(node, 0), reshaped(p, node)
    if any(dim is not None for dim in (*before, *dims)):
        requested = p.facts.values.get(node.input(1))
        sizes = [None] * len(dims) if requested is None else requested.ravel().tolist()
        copied = [size == 0 and not node.integer("allowzero", 0) for size in sizes]
        # 0 copies the input's size and -1 follows from the others: both come right by themselves, unless the size is
        # copied from an axis that only happens to be as long.
        strays = [axis for axis, copies in enumerate(copied) if copies and not _are_the_same(before[axis], dims[axis])]
        if strays and not p.is_static(node, 1):
            raise Unsupported(f"Reshape '{node.label}' copies the size of other channels")
        scaled = [
            None if size == -1 or (copies and axis not in strays) else dim
            for axis, (size, copies, dim) in enumerate(zip(sizes, copied, dims, strict=True))
        ]
        whole = p.shape(node.proto.output[0])
        fixed = {axis: (whole[axis], before[axis]) for axis in strays}
        p.rewrite(node, lambda editor, copy: editor.scale_input(copy, 1, scaled, fixed))
    p.set_output(node, dims)


def _are_the_same(a: Dim, b: Dim) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


@rule("Flatten", "Unsqueeze")
def reshape_by_axes(p: Propagation, node: Node) -> None:
    p.set_output(node, reshaped(p, node))


@rule("Squeeze")
def squeeze(p: Propagation, node: Node) -> None:
    before, dims = p.dims(node, 0), reshaped(p, node)
    if node.integers("axes") is None and not node.has(1) and any(dim is not None for dim in dims):
        axes = [axis for axis, size in enumerate(p.shape(node.input(0))) if size == 1]
        p.rewrite(node, lambda editor, copy: editor.squeeze_only(copy, axes, before))
    p.set_output(node, dims)


def reshaped(p: Propagation, node: Node) -> list[Dim]:
    """Labels of a reshaped tensor. Both shapes are refined to their common factors: a dimension that is cut keeps
    its labels on one factor, united over the others; dimensions that merge repeat their labels in memory order."""
    before, after = p.shape(node.input(0)), p.shape(node.proto.output[0])
    dims = p.dims(node, 0)
    if [s for s in before if s != 1] == [s for s in after if s != 1]:
        moved = iter([dim for dim, size in zip(dims, before, strict=True) if size != 1])
        return [None if size == 1 else next(moved) for size in after]
    if all(dim is None for dim in dims):
        return [None] * len(after)
    if 0 in before:
        raise Unsupported(f"{node.op} '{node.label}' of an empty tensor")
    if math.prod(before) != math.prod(after):
        raise Unsupported(f"{node.op} '{node.label}' changes the number of elements: {before} to {after}")
    result: list[Dim] = []
    for old, new in _blocks(before, after):
        result.extend(_reshape_block(p, node, before[old], after[new], dims[old]))
    return result


def _blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """The finest pairs of neighbouring dimensions that hold the same elements: each is reshaped by itself."""
    blocks: list[tuple[slice, slice]] = []
    old = new = 0
    while old < len(before) or new < len(after):
        old_end, new_end = min(old + 1, len(before)), min(new + 1, len(after))
        while (left := math.prod(before[old:old_end])) != (right := math.prod(after[new:new_end])):
            if left < right:
                old_end += 1
            else:
                new_end += 1
        if old_end == len(before) or new_end == len(after):  # trailing ones belong to the last block
            old_end, new_end = len(before), len(after)
        blocks.append((slice(old, old_end), slice(new, new_end)))
        old, new = old_end, new_end
    return blocks


def _reshape_block(
    p: Propagation, node: Node, before: tuple[int, ...], after: tuple[int, ...], dims: list[Dim]
) -> list[Dim]:
    if all(dim is None for dim in dims):
        return [None] * len(after)
    factors = _common_factors(before, after)
    if factors is None:
        for dim in dims:
            p.sets.pin(dim, f"{node.op} '{node.label}' mixes these dimensions")
        return [None] * len(after)
    parts: list[tuple[int, Dim]] = []
    for axis, cut in enumerate(_distribute(factors, before)):
        parts.extend(_cut(p, node, dims[axis], cut))
    return [_merge(p, node, factor_labels) for factor_labels in _gather_parts(factors, parts, after)]


def _common_factors(before: tuple[int, ...], after: tuple[int, ...]) -> list[int] | None:
    """The coarsest factors, outermost first, of which both shapes are groupings; None where there are none."""

    def boundaries(shape: tuple[int, ...]) -> set[int]:
        return {math.prod(shape[axis:]) for axis in range(len(shape) + 1)}

    chain = sorted(boundaries(before) | boundaries(after))
    pairs = list(zip(chain[1:], chain, strict=False))
    if any(larger % smaller for larger, smaller in pairs):
        return None
    return [larger // smaller for larger, smaller in pairs][::-1]


def _distribute(factors: list[int], shape: tuple[int, ...]) -> list[list[int]]:
    """The factors that make up each dimension."""
    rest = list(factors)
    groups: list[list[int]] = []
    for size in shape:
        group: list[int] = []
        while math.prod(group) != size:
            group.append(rest.pop(0))
        groups.append(group)
    return groups


def _cut(p: Propagation, node: Node, dim: Dim, factors: list[int]) -> list[tuple[int, Dim]]:
    """(size, labels) of each factor of one dimension."""
    if dim is None or len(factors) < 2:
        return [(f, dim) for f in factors]
    grid = dim.reshape(factors)
    roots = p.sets.find(grid)
    fits = [f > 1 and _constant_elsewhere(roots, axis) for axis, f in enumerate(factors)]
    if any(fits):
        kept = fits.index(True)  # the factors were merged before and come apart again
    else:
        order = sorted(range(len(factors)), key=lambda axis: -factors[axis])
        kept = order[p.choices.get(node.index, 0) % len(order)]
    front = np.moveaxis(grid, kept, 0).reshape(factors[kept], -1)
    labels = _together(p, front)
    if not any(fits):
        p.splits.append(SplitChoice(node.index, tuple(factors), kept, labels))
    return [(f, labels if axis == kept else None) for axis, f in enumerate(factors)]


def _constant_elsewhere(roots: Labels, axis: int) -> bool:
    front = np.moveaxis(roots, axis, 0).reshape(roots.shape[axis], -1)
    return bool((front == front[:, :1]).all())


def _gather_parts(
    factors: list[int], parts: list[tuple[int, Dim]], shape: tuple[int, ...]
) -> list[list[tuple[int, Dim]]]:
    rest = list(parts)
    return [[rest.pop(0) for _ in group] for group in _distribute(factors, shape)]


def _merge(p: Propagation, node: Node, parts: list[tuple[int, Dim]]) -> Dim:
    """Labels of a dimension made of factors, repeated in memory order; only one factor can stay labelled."""
    labelled = {axis: dim for axis, (_, dim) in enumerate(parts) if dim is not None}
    if not labelled:
        return None
    kept = max(labelled, key=lambda axis: len(labelled[axis]))
    labels = labelled.pop(kept)
    for other in labelled.values():
        p.sets.pin(other, f"{node.op} '{node.label}' merges these channels with others")
    inner = math.prod(size for size, _ in parts[kept + 1 :])
    outer = math.prod(size for size, _ in parts[:kept])
    return labels if inner == outer == 1 else np.tile(np.repeat(labels, inner), outer)


@rule("Transpose")
def transpose(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    perm = node.integers("perm") or list(range(len(dims)))[::-1]
    p.set_output(node, [dims[axis] for axis in perm])


@rule("Expand")
def expand(p: Propagation, node: Node) -> None:
    """Dimensions of size one are repeated: the copies are alike, so any of them may go with its partner."""
    before, after = p.shape(node.input(0)), p.shape(node.proto.output[0])
    dims: list[Dim] = [*[None] * (len(after) - len(before)), *p.dims(node, 0)]
    sizes = (1,) * (len(after) - len(before)) + before
    made = [p.sets.fresh(new) if old == 1 and new > 1 else None for old, new in zip(sizes, after, strict=True)]
    requested = p.facts.values.get(node.input(1))
    offset = len(after) - (len(requested.ravel()) if requested is not None else len(after))
    result = [dim if dim is not None else new for dim, new in zip(dims, made, strict=True)]
    scaled = [
        None if requested is not None and requested.ravel()[axis] == 1 else dim
        for axis, dim in enumerate(result[offset:])
    ]
    p.rewrite(node, lambda editor, copy: editor.scale_input(copy, 1, scaled))
    p.set_output(node, result)


@rule("ConstantOfShape")
def constant_of_shape(p: Propagation, node: Node) -> None:
    """Every element is alike: the tensor may shrink along any axis."""
    result: list[Dim] = [p.sets.fresh(size) if size > 1 else None for size in p.shape(node.proto.output[0])]
    if _is_integer(p, node):
        result = [None] * len(result)
    else:
        p.rewrite(node, lambda editor, copy: editor.scale_input(copy, 0, result))
    p.set_output(node, result)


def _is_integer(p: Propagation, node: Node) -> bool:
    value = next((a.t for a in node.proto.attribute if a.name == "value"), None)
    return value is not None and value.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


@rule("DepthToSpace")
def depth_to_space(p: Propagation, node: Node) -> None:
    """(N, C b b, H, W) -> (N, C, H b, W b): the b x b channels that make up one output live and die together."""
    dims = p.dims(node, 0)
    block = node.integer("blocksize", 1)
    p.pin_axes(node, 0, [2, 3], f"DepthToSpace '{node.label}'")
    out: Dim = None
    if dims[1] is not None:
        column_row = node.text("mode", "DCR") == "CRD"
        grid = dims[1].reshape((-1, block * block) if column_row else (block * block, -1))
        out = _together(p, grid if column_row else grid.T)
    p.set_output(node, [None, out, None, None])


def _together(p: Propagation, grid: Labels) -> Labels:
    """One label for each row of a grid, whose labels live and die together."""
    first = np.ascontiguousarray(grid[:, 0])
    p.tie(first, (np.ascontiguousarray(column) for column in grid.T[1:]))
    return first


@rule("SpaceToDepth")
def space_to_depth(p: Propagation, node: Node) -> None:
    """(N, C, H, W) -> (N, b b C, H / b, W / b): every channel appears b x b times."""
    dims = p.dims(node, 0)
    p.pin_axes(node, 0, [2, 3], f"SpaceToDepth '{node.label}'")
    out = None if dims[1] is None else np.tile(dims[1], node.integer("blocksize", 1) ** 2)
    p.set_output(node, [None, out, None, None])


@rule("Col2Im")
def columns_to_image(p: Propagation, node: Node) -> None:
    """(N, C k, L) -> (N, C, ...): the k rows that hold the block of one channel live and die together."""
    batch, rows, _ = p.dims(node, 0)
    p.pin_axes(node, 0, [2], f"Col2Im '{node.label}' lays these positions out")
    out: Dim = None
    if rows is not None:
        out = _together(p, rows.reshape(-1, math.prod(p.value(node, 2).ravel().tolist())))
    p.set_output(node, [batch, out, *[None] * (len(p.shape(node.proto.output[0])) - 2)])


@rule("Shape")
def shape_of(p: Propagation, node: Node) -> None:
    """A shape as data stays what it was (an attention scale is computed from it): the ops that need the pruned size
    are rewritten where they use it."""
    dims = p.dims(node, 0)
    start = node.integer("start", 0)
    end = node.integer("end", len(dims))
    named = dims[start:end]
    if any(dim is not None for dim in named):
        p.rewrite(node, lambda editor, copy: editor.keep_shape(copy, named))
    p.clear_outputs(node)


@rule("Size")
def size_of(p: Propagation, node: Node) -> None:
    p.pin_axes(node, 0, range(p.rank(node, 0)), f"Size '{node.label}' counts these channels")
    p.clear_outputs(node)


@rule("If", "Loop", "Scan")
def control_flow(p: Propagation, node: Node) -> None:
    """What enters and leaves a body keeps its size; inside, channels are free."""
    made_of_nothing(p, node)


@rule("Constant", "Range", "RandomNormal", "RandomUniform", "EyeLike", "NonZero", "OneHot")
def made_of_nothing(p: Propagation, node: Node) -> None:
    """Results without channels of their own; what they read must keep its size."""
    for position in range(len(node.proto.input)):
        if node.has(position):
            p.pin_axes(node, position, range(p.rank(node, position)), f"{node.op} '{node.label}' reads these channels")
    p.clear_outputs(node)
