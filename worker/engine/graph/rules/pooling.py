"""Pooling, resizing and sampling: channels pass, positions stay."""

from worker.engine.graph.propagation import Node, Propagation, rule


@rule("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pool(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    slid = [axis for axis in range(2, len(dims)) if _slides(node, axis - 2)]
    p.pin_axes(node, 0, slid, f"{node.op} '{node.label}' slides over this axis")
    if len(node.proto.output) > 1 and p.is_used(node.proto.output[1]):
        others = [axis for axis in range(1, len(dims)) if axis not in slid]
        p.pin_axes(node, 0, others, f"{node.op} '{node.label}' counts positions across these channels")
    passed = [None if axis in slid else dim for axis, dim in enumerate(dims)]
    p.set_output(node, passed)
    p.set_output(node, passed, position=1)


def _slides(node: Node, axis: int) -> bool:
    """Whether the kernel changes an axis of positions: one of size one, in steps of one, leaves it as it is."""
    kernel = node.integers("kernel_shape")
    if kernel is None:
        return True
    steps, pads = node.integers("strides") or [1] * len(kernel), node.integers("pads") or [0] * 2 * len(kernel)
    return kernel[axis] > 1 or steps[axis] > 1 or pads[axis] != 0 or pads[axis + len(kernel)] != 0


@rule("GridSample")
def grid_sample(p: Propagation, node: Node) -> None:
    dims = p.dims(node, 0)
    p.pin_axes(node, 0, [0, *range(2, len(dims))], f"{node.op} '{node.label}' samples along this axis")
    p.pin_axes(node, 1, range(p.rank(node, 1)), f"sampling grid of '{node.label}'")
    p.set_output(node, [None, dims[1], *[None] * (len(dims) - 2)])


@rule("RoiAlign", "MaxRoiPool")
def roi_pool(p: Propagation, node: Node) -> None:
    """X (N, C, H, W) and regions -> (regions, C, h, w)."""
    p.pin_axes(node, 0, [0, 2, 3], f"{node.op} '{node.label}' pools along this axis")
    for position in range(1, len(node.proto.input)):
        p.pin_axes(node, position, range(p.rank(node, position)), f"regions of '{node.label}'")
    p.set_output(node, [None, p.dim(node, 0, 1), None, None])


@rule("Resize", "Upsample")
def resize(p: Propagation, node: Node) -> None:
    """Axes that keep their size keep their labels. `sizes` names them all, so surgery scales its entries."""
    before, after = p.shape(node.input(0)), p.shape(node.proto.output[0])
    dims = p.dims(node, 0)
    changed = [axis for axis in range(len(dims)) if before[axis] != after[axis]]
    p.pin_axes(node, 0, changed, f"{node.op} '{node.label}' interpolates along this axis")
    passed = [None if axis in changed else dim for axis, dim in enumerate(dims)]
    if node.op == "Resize" and node.has(3) and any(dim is not None for dim in passed):
        axes = node.integers("axes") or list(range(len(dims)))
        named = [passed[axis] for axis in axes]
        p.rewrite(node, lambda editor, copy: editor.scale_input(copy, 3, named))
    p.set_output(node, passed)
