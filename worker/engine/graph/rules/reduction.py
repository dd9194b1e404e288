"""Reductions and orderings along axes."""

from worker.engine.graph.propagation import Node, Propagation, Unsupported, rule

_EXACT = {"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
"""A channel that is zero adds nothing to these."""


@rule(
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSum",
    "ReduceLogSumExp",
)
def reduce(p: Propagation, node: Node) -> None:
    """Over labelled axes sums and norms are exact (masked channels add zero), means and extremes only when waived."""
    dims = p.dims(node, 0)
    axes = _axes(p, node, len(dims))
    for axis in axes:
        if node.op in _EXACT:
            p.contract(node, 0, axis, dims[axis])
        else:
            p.waive(node, axis, dims[axis], keeps_axis=False, what="reduces")
    if node.integer("keepdims", 1):
        p.set_output(node, [None if axis in axes else dim for axis, dim in enumerate(dims)])
    else:
        p.set_output(node, [dim for axis, dim in enumerate(dims) if axis not in axes])


def _axes(p: Propagation, node: Node, rank: int) -> set[int]:
    axes = node.integers("axes")
    if axes is None and node.has(1):
        axes = [int(a) for a in p.value(node, 1).ravel()]
    if not axes:
        return set() if node.integer("noop_with_empty_axes", 0) else set(range(rank))
    return {axis % rank for axis in axes}


@rule("ArgMax", "ArgMin")
def arg_extreme(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    axis = node.integer("axis", 0) % len(dims)
    p.pin_axes(node, 0, [axis], f"{node.op} '{node.label}' returns the indices of these channels")
    if node.integer("keepdims", 1):
        p.set_output(node, [None if i == axis else dim for i, dim in enumerate(dims)])
    else:
        p.set_output(node, [dim for i, dim in enumerate(dims) if i != axis])


@rule("TopK")
def top_k(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    axis = node.integer("axis", -1) % len(dims)
    p.pin_axes(node, 0, [axis], f"TopK '{node.label}' orders these channels")
    kept = [None if i == axis else dim for i, dim in enumerate(dims)]
    p.set_output(node, kept)
    p.set_output(node, kept, position=1)


@rule("CumSum")
def cumulative_sum(p: Propagation, node: Node) -> None:
    """A sum of all before: removed channels add zero once masked. The axis is a number, or a list of one."""
    dims = p.dims(node, 0)
    axis = int(p.value(node, 1).item()) % len(dims)
    p.contract(node, 0, axis, dims[axis])
    p.set_output(node, dims)


@rule("Trilu")
def triangle(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    if len(dims) < 2:
        raise Unsupported(f"Trilu '{node.label}' of a vector")
    p.pin_axes(node, 0, [len(dims) - 2, len(dims) - 1], f"Trilu '{node.label}' depends on these positions")
    p.set_output(node, [*dims[:-2], None, None])
