"""Ops that treat every element alike: activations, arithmetic, comparisons, quantisation."""

from worker.engine.graph.propagation import Node, Propagation, broadcast, rule

UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos", "Cosh"),
    *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu"),
    *("Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
NARY = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
)


@rule(*UNARY)
def unary(p: Propagation, node: Node) -> None:
    p.set_output(node, p.dims(node, 0))


@rule("Clip", "Dropout", "CastLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli")
def unary_with_settings(p: Propagation, node: Node) -> None:
    """The further inputs are scalars (bounds, ratio, type)."""
    dims = p.dims(node, 0)
    p.set_output(node, dims)
    p.set_output(node, dims, position=1)


@rule(*NARY)
def elementwise(p: Propagation, node: Node) -> None:
    p.set_output(node, broadcast(p, node, range(len(node.proto.input))))


@rule("QuantizeLinear", "DequantizeLinear")
def quantise(p: Propagation, node: Node) -> None:
    """Scale and zero point are scalars, or vectors along `axis`."""
    dims = p.dims(node, 0)
    axis = node.integer("axis", 1)
    for position in (1, 2):
        if not node.has(position):
            continue
        if p.rank(node, position) == 1:
            p.bind(node, position, 0, dims[axis] if len(dims) > 1 else dims[0])
        elif p.rank(node, position) > 1:  # blocked quantisation: scales along a coarser grid
            p.pin_axes(node, 0, range(len(dims)), f"{node.op} '{node.label}' quantises blocks")
            dims = [None] * len(dims)
    p.set_output(node, dims)


@rule("DynamicQuantizeLinear")
def quantise_dynamically(p: Propagation, node: Node) -> None:
    """Scale and zero point are taken from the range of the whole tensor, which zero is always made part of: a removed
    channel adds nothing to it."""
    dims = p.dims(node, 0)
    for axis, dim in enumerate(dims):
        p.contract(node, 0, axis, dim)
    p.set_output(node, dims)
    for position in (1, 2):
        p.set_output(node, [], position)
