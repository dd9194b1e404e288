"""Reductions and orderings along axes."""

from worker.engine.graph.labels import Labels
from worker.engine.graph.onnx_graph import FLOATS
from worker.engine.graph.propagation import Node, Propagation, Unsupported, rule
from worker.engine.graph.rules.elementwise import NARY, UNARY

_EXACT = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
"""A channel that is zero adds nothing to these."""
_CORRECTED = {"ReduceMean": 9, "ReduceMax": 7}
"""A channel that is zero adds to these what surgery can add in its place (to the count, a zero among others), from this
opset on."""
_ELEMENT_BY_ELEMENT = frozenset(
    {*UNARY, *NARY, "Clip", "Dropout", "Expand", "Flatten", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)


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
    """Over labelled axes sums and norms are exact (masked channels add zero). So are means and maxima, corrected, that
    lead elsewhere, as in spatial attention (Woo et al., CBAM, ECCV 2018): of all channels, the removed ones as zeros.
    Those of a norm that is written out, and minima, are left to waivers."""
    dims = p.dims(node, 0)
    axes = _axes(p, node, len(dims))
    labelled = [dim for axis in sorted(axes) if (dim := dims[axis]) is not None]
    corrected = _can_be_corrected(p, node) and not any(_meets_again(p, node, dim) for dim in labelled)
    if corrected and node.op == "ReduceMean":
        p.rewrite(node, lambda editor, copy: editor.scale_result(copy, labelled))
    elif corrected:
        p.rewrite(node, lambda editor, copy: editor.add_zero_to_maximum(copy, labelled))
    for axis in axes:
        if corrected or node.op in _EXACT:
            p.contract(node, 0, axis, dims[axis])
        else:
            p.waive(node, axis, dims[axis], keeps_axis=False, what="reduces")
    if node.integer("keepdims", 1):
        p.set_output(node, [None if axis in axes else dim for axis, dim in enumerate(dims)])
    else:
        p.set_output(node, [dim for axis, dim in enumerate(dims) if axis not in axes])


def _can_be_corrected(p: Propagation, node: Node) -> bool:
    first = _CORRECTED.get(node.op)
    return first is not None and p.graph.opset >= first and p.facts.types.get(node.input(0)) in FLOATS


def _meets_again(p: Propagation, node: Node, labels: Labels) -> bool:
    """Whether what is reduced meets as many channels again, element by element, as it does in a norm that is written
    out: x - mean(x), x / sqrt(mean(x * x))."""
    pending, seen = [node.proto.output[0]], {node.proto.output[0]}
    while pending:
        name = pending.pop()
        for index, _ in p.graph.consumers.get(name, ()):
            reader = p.graph.nodes[index]
            if reader.op_type not in _ELEMENT_BY_ELEMENT:
                continue
            result = reader.output[0]
            if p.shape(result).count(len(labels)) > p.shape(name).count(len(labels)):
                return True
            if result not in seen:
                seen.add(result)
                pending.append(result)
    return False


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
