"""Attention as one node, and the rotation of its queries (opset 23): heads and widths are free, positions stay."""

import math

from worker.engine.graph.labels import Dim
from worker.engine.graph.propagation import Node, Propagation, Unsupported, rule


@rule("Attention")
def attention(p: Propagation, node: Node) -> None:
    """Q (N, Hq, L, E), K (N, Hk, S, E), V (N, Hk, S, Ev), mask (..., L, S) -> (N, Hq, L, Ev). Each head of K serves
    Hq / Hk neighbouring heads of Q. The scale stays that of the original width."""
    if p.rank(node, 0) != 4:
        raise Unsupported(f"Attention '{node.label}' has its heads and their width in one axis")
    if node.has(4) or node.has(5) or any(node.proto.output[1:]):
        raise Unsupported(f"Attention '{node.label}' keeps what it computed before")
    for position in range(3):
        p.pin_axes(node, position, [0, 2], f"Attention '{node.label}' compares these positions")
    heads = _heads(p, node)
    if node.has(3):
        _follow_mask(p, node, heads)
    width = p.unite(p.dim(node, 0, 3), p.dim(node, 1, 3), f"Attention '{node.label}' with a width that stays")
    value_width = p.dim(node, 2, 3)
    p.contract(node, 0, 3, width)
    p.contract(node, 1, 3, width)
    samples, query_heads, steps, whole_width = p.shape(node.input(0))
    if width is not None and node.number("scale") is None:
        p.rewrite(node, lambda editor, copy: editor.set_attribute(copy, "scale", 1 / math.sqrt(whole_width)))
    others, whole_value_width = p.shape(node.input(2))[2:]
    either = query_heads if heads is None else heads
    p.count(node, samples, either, steps, others, whole_width if width is None else width)
    p.count(node, samples, either, steps, others, whole_value_width if value_width is None else value_width)
    p.set_output(node, [None, heads, None, value_width])


def _heads(p: Propagation, node: Node) -> Dim:
    """Labels of the heads of Q, united with those of the heads of K and V that serve them."""
    why = f"Attention '{node.label}' with heads that stay"
    served, serving = p.dim(node, 0, 1), p.unite(p.dim(node, 1, 1), p.dim(node, 2, 1), why)
    if served is None or serving is None:
        return p.unite(served, serving, why)
    for column in served.reshape(len(serving), -1).T:
        p.sets.unite(serving, column.copy())
    return served


def _follow_mask(p: Propagation, node: Node, heads: Dim) -> None:
    """A mask is broadcast to (N, Hq, L, S)."""
    rank = p.rank(node, 3)
    p.pin_axes(node, 3, [axis for axis in range(rank) if axis != rank - 3], f"mask of Attention '{node.label}'")
    if rank >= 3:
        p.bind(node, 3, rank - 3, heads, f"Attention '{node.label}' with heads that stay")


@rule("RotaryEmbedding")
def rotary_embedding(p: Propagation, node: Node) -> None:
    """X (N, H, L, E), or (N, L, H E): the width is rotated in pairs by angles that depend on the position."""
    dims = p.dims(node, 0)
    p.pin_axes(node, 0, [0, len(dims) - 2, len(dims) - 1], f"RotaryEmbedding '{node.label}' rotates these channels")
    for position in range(1, len(node.proto.input)):
        if node.has(position):
            p.pin_axes(node, position, range(p.rank(node, position)), f"angles of RotaryEmbedding '{node.label}'")
    p.set_output(node, [None, dims[1] if len(dims) == 4 else None, *[None] * (len(dims) - 2)])
