"""Channel shuffle: Reshape, Transpose, Reshape in a row only permute channels (ShuffleNet).

Between the reshapes the channels stand in a grid, which would have to keep its columns equal. As a permutation every
channel is free: surgery writes the three nodes as one Gather.
"""

import numpy as np

from worker.engine.graph.labels import Dim, Labels
from worker.engine.graph.propagation import Node, Propagation


def shuffle_channels(p: Propagation, node: Node) -> bool:
    """Label a shuffle that starts at this Reshape; False where none does."""
    nodes = _three_in_a_row(p, node)
    if nodes is None:
        return False
    transposition, last = nodes
    before, grid = p.shape(node.input(0)), p.shape(node.proto.output[0])
    axis = next((i for i, (old, new) in enumerate(zip(before, grid, strict=False)) if old != new), None)
    if axis is None or grid != (*before[:axis], *grid[axis : axis + 2], *before[axis + 1 :]):
        return False
    swap = list(range(len(grid)))
    swap[axis], swap[axis + 1] = swap[axis + 1], swap[axis]
    dims = p.dims(node, 0)
    channels: Dim = dims[axis]
    if transposition.integers("perm") != swap or p.shape(last.proto.output[0]) != before or channels is None:
        return False
    order = np.arange(before[axis]).reshape(grid[axis], grid[axis + 1]).T.ravel()
    p.set_output(node, [*dims[:axis], None, None, *dims[axis + 1 :]])
    p.shuffled[last.index] = [*dims[:axis], channels[order], *dims[axis + 1 :]]
    _rewrite(p, (node, transposition, last), axis, channels, order)
    return True


def _three_in_a_row(p: Propagation, node: Node) -> tuple[Node, Node] | None:
    """The Transpose and the Reshape behind this Reshape, if nobody else reads what lies between."""
    row: list[Node] = []
    name = node.proto.output[0]
    for op in ("Transpose", "Reshape"):
        users = p.graph.consumers.get(name, [])
        if len(users) != 1 or users[0][1] != 0 or name in p.graph.outputs:
            return None
        following = Node(p.graph.nodes[users[0][0]], users[0][0])
        if following.op != op or p.graph.scope[following.index] != p.graph.scope[node.index]:
            return None
        row.append(following)
        name = following.proto.output[0]
    return row[0], row[1]


def _rewrite(p: Propagation, nodes: tuple[Node, Node, Node], axis: int, channels: Labels, order: Labels) -> None:
    first, *others = nodes
    p.rewrite(first, lambda editor, copy: editor.replace_by_gather(copy, channels, order, axis))
    for other in others:
        p.rewrite(other, lambda editor, copy: editor.replace_by_identity(copy, channels))
