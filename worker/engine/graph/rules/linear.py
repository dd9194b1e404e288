"""Ops that contract channels with weights: convolutions and matrix products."""

import string

import numpy as np

from worker.engine.graph.labels import Dim, Labels
from worker.engine.graph.propagation import Node, Propagation, Unsupported, rule


@rule("Conv")
def conv(p: Propagation, node: Node) -> None:
    """X (N, C, ...), W (M, C / group, ...), B (M)."""
    _convolve(p, node, weight=1, bias=2)


@rule("DeformConv")
def conv_deformable(p: Propagation, node: Node) -> None:
    """X, W, offset, B, mask. Each offset group is one block of input channels: the blocks stay equal."""
    for position in (2, 4):
        if node.has(position):
            p.pin_axes(node, position, range(p.rank(node, position)), f"offsets of DeformConv '{node.label}'")
    p.pin_axes(node, 0, range(2, p.rank(node, 0)), f"DeformConv '{node.label}' samples along this axis")
    x, offset_groups = p.dim(node, 0, 1), node.integer("offset_group", 1)
    if x is not None and offset_groups > 1:
        blocks = x.reshape(offset_groups, -1)
        p.tie(blocks[0], blocks[1:])
    _convolve(p, node, weight=1, bias=3)


@rule("ConvInteger")
def conv_integer(p: Propagation, node: Node) -> None:
    """X, W, x_zero_point, w_zero_point (scalar or M)."""
    out = _convolve(p, node, weight=1, bias=None)
    if node.has(3) and p.rank(node, 3) == 1:
        p.bind(node, 3, 0, out)


@rule("QLinearConv")
def conv_quantised(p: Propagation, node: Node) -> None:
    """X, x_scale, x_zero_point, W, w_scale, w_zero_point, y_scale, y_zero_point, B."""
    out = _convolve(p, node, weight=3, bias=8)
    for position in (4, 5):
        if p.rank(node, position) == 1:
            p.bind(node, position, 0, out)


def _convolve(p: Propagation, node: Node, weight: int, bias: int | None) -> Dim:
    shape = p.shape(node.input(weight))
    group = node.integer("group", 1)
    inputs_per_group = shape[1]
    x = p.dim(node, 0, 1)
    if group == 1:
        p.bind(node, weight, 1, x, f"{node.op} '{node.label}' reads channels that stay")
        out = p.dim(node, weight, 0)
        per_group: Dim = x
    elif inputs_per_group == 1:
        out, per_group = _depthwise(p, node, weight, x, group), None
    else:
        out, per_group = _grouped(p, node, weight, x, group)
    p.contract(node, 0, 1, x if group == 1 or inputs_per_group > 1 else None)
    if p.is_static(node, 0):  # a learnt image that a computed kernel goes over
        p.contract(node, weight, 1, per_group)
    if group == 1 or inputs_per_group > 1:
        p.source(node, weight, 0, out)
    positions = _positions(p, node, weight)
    if bias is not None:
        p.bind(node, bias, 0, out)
    dims: list[Dim] = [p.dim(node, 0, 0), out, *positions]
    per_output = inputs_per_group if per_group is None else per_group
    p.count(node, *_factors(p, node, dims), per_output, *shape[2:])
    p.set_output(node, dims)
    return out


def _positions(p: Propagation, node: Node, weight: int) -> list[Dim]:
    """Labels of the axes that the kernel slides over: a kernel of one, in steps of one, leaves an axis as it is. One of
    1 x 1 channels that keeps their number is a statistic over neighbours (ECA, arXiv 1910.03151)."""
    outputs, inputs, *kernel = p.shape(node.input(weight))
    strides, pads = node.integers("strides") or [1] * len(kernel), node.integers("pads") or [0] * 2 * len(kernel)
    slides = [
        size > 1 or step > 1 or before != 0 or after != 0
        for size, step, before, after in zip(kernel, strides, pads, pads[len(kernel) :], strict=False)
    ]
    p.pin_axes(node, weight, range(2, 2 + len(kernel)), f"kernel of {node.op} '{node.label}'")
    moved = [axis for axis, slid in enumerate(slides, start=2) if slid]
    given, made = p.shape(node.input(0)), p.shape(node.proto.output[0])
    if node.op == "Conv" and outputs == inputs == 1 and given == made and max(strides) == 1:
        labelled = [axis for axis in moved if p.dim(node, 0, axis) is not None]
        if len(labelled) == 1:
            p.waive(node, labelled[0], p.dim(node, 0, labelled[0]), keeps_axis=True, what="slides")
            return [p.dim(node, 0, axis) for axis in range(2, len(given))]
    p.pin_axes(node, 0, moved, f"{node.op} '{node.label}' slides over this axis")
    return [None if slid else p.dim(node, 0, axis) for axis, slid in enumerate(slides, start=2)]


def _depthwise(p: Propagation, node: Node, weight: int, x: Dim, group: int) -> Dim:
    """Each input channel has its own outputs, which live and die with it; `group` follows."""
    outputs = p.shape(node.input(weight))[0]
    if x is None:
        p.pin_axes(node, weight, [0], f"depthwise {node.op} '{node.label}' reads channels that stay")
        return None
    out: Labels = np.repeat(x, outputs // group)
    p.bind(node, weight, 0, out)
    p.rewrite(node, lambda editor, copy: editor.set_attribute(copy, "group", editor.kept(x)))
    return out


def _grouped(p: Propagation, node: Node, weight: int, x: Dim, group: int) -> tuple[Dim, Dim]:
    """The same position in every group lives and dies together, so that the groups stay equal."""
    outputs, inputs_per_group = p.shape(node.input(weight))[:2]
    first: Dim = None
    if x is not None:
        blocks = x.reshape(group, inputs_per_group)
        p.tie(blocks[0], blocks[1:])
        first = blocks[0]
    p.bind(node, weight, 1, first, f"grouped {node.op} '{node.label}' reads channels that stay")
    if outputs == group:
        p.pin_axes(node, weight, [0], f"{node.op} '{node.label}' has one output channel per group")
        return None, first
    out = p.dim(node, weight, 0)
    if out is not None:
        blocks = out.reshape(group, outputs // group)
        p.tie(blocks[0], blocks[1:])
    return out, first


@rule("ConvTranspose")
def conv_transpose(p: Propagation, node: Node) -> None:
    """X (N, C, ...), W (C, M / group, ...), B (M)."""
    shape = p.shape(node.input(1))
    group = node.integer("group", 1)
    inputs, outputs_per_group = shape[:2]
    x = p.dim(node, 0, 1)
    spatial = range(2, len(shape))
    p.pin_axes(node, 0, [0, *spatial], f"{node.op} '{node.label}' slides over this axis")
    p.pin_axes(node, 1, spatial, f"kernel of {node.op} '{node.label}'")
    why = f"{node.op} '{node.label}' reads channels that stay"
    per_input: Dim
    if group == inputs and group > 1:  # depthwise
        p.bind(node, 1, 0, x, why)
        p.pin_axes(node, 1, [1], f"depthwise {node.op} '{node.label}'")
        out: Dim = None if x is None else np.repeat(x, outputs_per_group)
        per_input = None
        if x is not None:
            p.rewrite(node, lambda editor, copy: editor.set_attribute(copy, "group", editor.kept(x)))
    else:
        if x is not None and group > 1:
            blocks = x.reshape(group, inputs // group)
            p.tie(blocks[0], blocks[1:])
        p.bind(node, 1, 0, x, why)
        per_group = p.dim(node, 1, 1)
        out = None if per_group is None else np.tile(per_group, group)
        per_input = per_group
        p.contract(node, 0, 1, x)
        if p.is_static(node, 0):
            p.contract(node, 1, 0, x)
        p.source(node, 1, 1, per_group)
    p.bind(node, 2, 0, out)
    taps = p.shape(node.input(0))
    fixed = (taps[0], *taps[2:], *shape[2:])
    p.count(node, inputs if x is None else x, outputs_per_group if per_input is None else per_input, *fixed)
    p.set_output(node, [None, out, *[None] * (len(taps) - 2)])


@rule("Gemm")
def gemm(p: Propagation, node: Node) -> None:
    """alpha * A (M, K) @ B (K, N) + beta * C, either operand perhaps transposed."""
    m_axis, ka_axis = (1, 0) if node.integer("transA", 0) else (0, 1)
    kb_axis, n_axis = (1, 0) if node.integer("transB", 0) else (0, 1)
    rows, columns, k = _matrix_product(p, node, (0, m_axis, ka_axis), (1, n_axis, kb_axis))
    p.count(node, *_factors(p, node, [rows, columns]), k if k is not None else p.shape(node.input(0))[ka_axis])
    if node.has(2):
        bias = p.shape(node.input(2))
        if bias:
            p.bind(node, 2, len(bias) - 1, columns)
        if len(bias) == 2:
            p.bind(node, 2, 0, rows)
    p.set_output(node, [rows, columns])


_Operand = tuple[int, int | None, int]
"""(position, free axis, contracted axis) of a matrix; a vector has no free axis."""


def _matrix_product(p: Propagation, node: Node, left: _Operand, right: _Operand) -> tuple[Dim, Dim, Dim]:
    """Labels of rows, columns and the contracted axis."""
    (a, m_axis, ka_axis), (b, n_axis, kb_axis) = left, right
    why = f"{node.op} '{node.label}' with channels that stay"
    # The activation decides, the weight follows.
    first, second = ((a, ka_axis), (b, kb_axis)) if p.is_static(node, b) else ((b, kb_axis), (a, ka_axis))
    k = p.dim(node, *first)
    p.bind(node, *second, k, why)
    k = p.dim(node, *second) if k is not None else None
    p.contract(node, a, ka_axis, k)
    p.contract(node, b, kb_axis, k)
    rows = None if m_axis is None else p.dim(node, a, m_axis)
    columns = None if n_axis is None else p.dim(node, b, n_axis)
    if n_axis is not None and p.is_static(node, b) and not p.is_static(node, a):
        p.source(node, b, n_axis, columns)
    elif m_axis is not None and p.is_static(node, a) and not p.is_static(node, b):
        p.source(node, a, m_axis, rows)
    return rows, columns, k


@rule("MatMul", "MatMulInteger", "QLinearMatMul")
def matmul(p: Propagation, node: Node) -> None:
    """A (..., M, K) @ B (..., K, N), leading dimensions broadcast; either may be a vector (K)."""
    a, b = (0, 3) if node.op == "QLinearMatMul" else (0, 1)
    a_rank, b_rank = p.rank(node, a), p.rank(node, b)
    left = (a, a_rank - 2 if a_rank > 1 else None, a_rank - 1)
    right = (b, b_rank - 1 if b_rank > 1 else None, max(b_rank - 2, 0))
    rows, columns, k = _matrix_product(p, node, left, right)
    for positions, labels in ((_ROW_SETTINGS, rows), (_COLUMN_SETTINGS, columns)):
        for position in positions.get(node.op, ()):
            _bind_setting(p, node, position, labels)
    rank = max(a_rank, b_rank)
    dims = [_leading(p, node, [(a, axis - rank + a_rank), (b, axis - rank + b_rank)]) for axis in range(rank - 2)]
    dims += [rows] if a_rank > 1 else []
    dims += [columns] if b_rank > 1 else []
    contracted = p.shape(node.input(a))[-1]
    p.count(node, *_factors(p, node, dims), k if k is not None else contracted)
    p.set_output(node, dims)


_ROW_SETTINGS = {"MatMulInteger": (2,), "QLinearMatMul": (1, 2)}
_COLUMN_SETTINGS = {"MatMulInteger": (3,), "QLinearMatMul": (4, 5)}
"""Positions of the scales and zero points of the left and of the right operand."""


def _bind_setting(p: Propagation, node: Node, position: int, labels: Dim) -> None:
    """A scale or zero point is a scalar, or a vector over the operand's free axis."""
    if node.has(position) and p.rank(node, position) == 1:
        p.bind(node, position, 0, labels)
    elif node.has(position) and p.rank(node, position) > 1:
        raise Unsupported(f"{node.op} '{node.label}' is quantised in blocks")


def _factors(p: Propagation, node: Node, dims: list[Dim]) -> list[int | Dim]:
    """The result's dimensions as factors of a product: labels where there are some, else the size."""
    shape = p.shape(node.proto.output[0])
    return [size if dim is None else dim for dim, size in zip(dims, shape, strict=True)]


def _leading(p: Propagation, node: Node, operands: list[tuple[int, int]]) -> Dim:
    wide = [(i, axis) for i, axis in operands if axis >= 0 and p.shape(node.input(i))[axis] > 1]
    if not wide:
        return None
    wide.sort(key=lambda operand: p.is_constant(node.input(operand[0])))
    first = p.dim(node, *wide[0])
    for i, axis in wide[1:]:
        p.bind(node, i, axis, first, f"{node.op} '{node.label}' with channels that stay")
    return first


@rule("Einsum")
def einsum(p: Propagation, node: Node) -> None:
    """Letters shared by operands are united; letters missing in the result are contracted."""
    equation = node.text("equation", "").replace(" ", "")
    operands, result = _einsum_letters(equation, [p.rank(node, i) for i in range(len(node.proto.input))])
    labels: dict[str, Dim] = {}
    sizes: dict[str, int] = {}
    # Activations first: the weights follow them.
    for i in sorted(range(len(operands)), key=lambda i: p.is_static(node, i)):
        for axis, letter in enumerate(operands[i]):
            size = p.shape(node.input(i))[axis]
            if letter not in labels or sizes[letter] == 1:
                labels[letter], sizes[letter] = p.dim(node, i, axis), size
            elif size > 1:
                p.bind(node, i, axis, labels[letter], f"Einsum '{node.label}' with channels that stay")
    static = [p.is_static(node, i) for i in range(len(operands))]
    for i, letters in enumerate(operands):
        for axis, letter in enumerate(letters):
            if letter not in result:
                p.contract(node, i, axis, labels[letter])
            elif static[i] and not any(letter in o for j, o in enumerate(operands) if not static[j]):
                p.source(node, i, axis, labels[letter])
    p.count(node, *(sizes[c] if labels[c] is None else labels[c] for c in sizes))
    p.set_output(node, [labels[c] for c in result])


def _einsum_letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result; those of an ellipsis are written out, the last axes in common."""
    left, arrow, result = equation.partition("->")
    if not arrow:
        result = "".join(sorted(c for c in set(left) - set(",.") if left.count(c) == 1))
        result = f"...{result}" if "..." in left else result
    operands = left.split(",")
    hidden = [rank - len(operand.replace("...", "")) for rank, operand in zip(ranks, operands, strict=True)]
    unused = [c for c in string.ascii_letters if c not in equation][: max(hidden, default=0)]
    written = [
        operand.replace("...", "".join(unused[len(unused) - count :]))
        for operand, count in zip(operands, hidden, strict=True)
    ]
    return written, result.replace("...", "".join(unused))


@rule("LSTM", "GRU", "RNN")
def recurrent(p: Propagation, node: Node) -> None:
    """X (steps, batch, C) is contracted with W (directions, gates, C); the hidden width stays."""
    axis = 2
    x = p.dim(node, 0, axis)
    p.bind(node, 1, 2, x, f"{node.op} '{node.label}' reads channels that stay")
    p.contract(node, 0, axis, x)
    p.pin_axes(node, 0, [0, 1], f"{node.op} '{node.label}' runs along this axis")
    for position in range(1, len(node.proto.input)):
        if node.has(position):
            axes = [0, 1] if position == 1 else range(p.rank(node, position))
            p.pin_axes(node, position, axes, f"hidden state of {node.op} '{node.label}'")
    w, r = p.shape(node.input(1)), p.shape(node.input(2))
    steps, batch = p.shape(node.input(0))[:2]  # the other way about with layout 1: the product is the same
    p.count(node, steps, batch, w[0], w[1], x if x is not None else w[2])
    p.count(node, steps, batch, *r)
    p.clear_outputs(node)
