"""The Fourier transform along one axis: each channel of another axis is transformed by itself."""

from worker.engine.graph.propagation import Node, Propagation, rule


@rule("DFT")
def fourier_transform(p: Propagation, node: Node) -> None:
    """(..., 1 or 2), the last axis holding real and imaginary part. The axis became an input in opset 20."""
    dims = p.dims(node, 0)
    axis = int(p.value(node, 2).item()) if node.has(2) else node.integer("axis", 1 if p.graph.opset < 20 else -2)
    mixed = (axis % len(dims), len(dims) - 1)
    p.pin_axes(node, 0, mixed, f"DFT '{node.label}' transforms along this axis")
    p.set_output(node, [None if i in mixed else dim for i, dim in enumerate(dims)])
