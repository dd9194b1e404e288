"""Networks in eight bits: QuantizeLinear-DequantizeLinear pairs, and the QLinear ops."""

import numpy as np

from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.graph.idioms import idiom

SEVEN_BITS = 60
"""Weights up to here leave room for the sum of two products in 16 bits, to which processors without VNNI keep."""


def levels(g: GraphBuilder, *shape: int, most: int = 127) -> str:
    return g.constant(g.rng.integers(-most, most + 1, shape).astype(np.int8))


def observed(g: GraphBuilder, x: str, scale: float = 0.04) -> str:
    """An activation to eight bits and back."""
    s, zero = g.constant(scale), g.constant(np.array(110, dtype=np.uint8))
    return str(g.node("DequantizeLinear", g.node("QuantizeLinear", x, s, zero), s, zero))


def per_channel(g: GraphBuilder, *shape: int, axis: int = 0) -> str:
    """A weight stored in eight bits with a scale for each output channel."""
    zero = g.constant(np.zeros(shape[axis], dtype=np.int8))
    scale = g.constant(g.rng.uniform(0.002, 0.004, shape[axis]).astype(np.float32))
    return str(g.node("DequantizeLinear", levels(g, *shape), scale, zero, axis=axis))


def bias(g: GraphBuilder, channels: int) -> str:
    scale, zero = g.constant(np.full(channels, 0.001, np.float32)), g.constant(np.zeros(channels, dtype=np.int32))
    values = g.constant(g.rng.integers(-300, 300, channels).astype(np.int32))
    return str(g.node("DequantizeLinear", values, scale, zero, axis=0))


@idiom(3, 4, 13, 17, 21)
@idiom(3, 4, 13, constants_as="node")
def pairs_around_every_layer(g):
    """A residual block, per-channel weights, biases in 32 bits, a dense layer at the end."""
    x = observed(g, g.input(("batch", 3, 6, 6)))
    x = observed(g, g.node("Relu", g.node("Conv", x, per_channel(g, 8, 3, 3, 3), bias(g, 8), pads=[1] * 4)))
    y = observed(g, g.node("Relu", g.node("Conv", x, per_channel(g, 10, 8, 3, 3), bias(g, 10), pads=[1] * 4)))
    y = observed(g, g.node("Conv", y, per_channel(g, 8, 10, 1, 1), bias(g, 8)))
    x = observed(g, g.node("Relu", g.node("Add", x, y)))
    x = observed(g, g.node("Flatten", g.node("GlobalAveragePool", x)))
    return g.node("Gemm", x, per_channel(g, 5, 8), bias(g, 5), transB=1)


@idiom(3, 4, 13, 17)
def pairs_with_transposed_and_folded_weights(g):
    """Weights quantised, dequantised and then transposed or reshaped on their way to the layer."""
    x = observed(g, g.node("Relu", g.node("Conv", g.input((2, 3, 6, 6)), per_channel(g, 6, 3, 3, 3), pads=[1] * 4)))
    w = g.transpose(per_channel(g, 3, 3, 6, 8, axis=3), 3, 2, 0, 1)
    x = observed(g, g.node("Relu", g.node("Conv", x, w, pads=[1] * 4)))
    x = g.transpose(g.reshape(x, 2, 8, 36), 0, 2, 1)
    x = g.node("MatMul", x, per_channel(g, 8, 7, axis=1))
    return g.node("MatMul", observed(g, x), g.node("Transpose", per_channel(g, 4, 7)))


def quantised(g: GraphBuilder, scale: float = 0.05) -> tuple[str, str]:
    return g.constant(scale), g.constant(np.array(120, dtype=np.uint8))


def linear_conv(g: GraphBuilder, x: str, given: tuple[str, str], made: tuple[str, str], shape: tuple[int, ...], **kw):
    """Its weights take all of eight bits, which is more than some processors add up without cutting off."""
    channels = shape[0]
    zeros = g.constant(np.zeros(channels, dtype=np.int8))
    scales = g.constant(g.rng.uniform(0.002, 0.004, channels).astype(np.float32))
    values = g.constant(g.rng.integers(-300, 300, channels).astype(np.int32))
    return g.node("QLinearConv", x, *given, levels(g, *shape), scales, zeros, *made, values, **kw)


@idiom(4, 5, 11, 17)
def ranges_taken_from_each_input(g):
    """What quantize_dynamic of ONNX Runtime writes: integer layers, a residual sum, a depthwise one."""

    def layer(op, x, shape, **kw):
        x, scale, zero = g.node("DynamicQuantizeLinear", x, outputs=3)
        weight = g.constant(g.rng.integers(0, 256, shape).astype(np.uint8))
        sums = g.node(op, x, weight, zero, g.constant(np.array(131, np.uint8)), **kw)
        values = g.node("Mul", g.node("Cast", sums, to=1), g.node("Mul", scale, g.constant(0.004)))
        ends = (-1, 1, 1) if op == "ConvInteger" else ()
        return g.node("Add", values, g.constant(g.normal(shape[0] if ends else shape[1]).reshape(ends or -1)))

    x = g.node("Relu", layer("ConvInteger", g.input(("batch", 3, 6, 6)), (8, 3, 3, 3), pads=[1] * 4))
    x = g.node("Add", x, layer("ConvInteger", x, (8, 8, 3, 3), pads=[1] * 4))
    x = g.node("Relu", layer("ConvInteger", x, (8, 1, 3, 3), pads=[1] * 4, group=8))
    x = g.node("Flatten", g.node("GlobalAveragePool", layer("ConvInteger", x, (6, 8, 1, 1))))
    return layer("MatMulInteger", x, (6, 4))


@idiom(4, 5, 10, 13, 17)
def linear_convolutions(g):
    """QLinearConv in a row, depthwise too, and QLinearMatMul at the end."""
    first, second, third, last = (quantised(g, s) for s in (0.02, 0.05, 0.06, 0.1))
    x = g.node("QuantizeLinear", g.input(("batch", 3, 6, 6)), *first)
    x = linear_conv(g, x, first, second, (8, 3, 3, 3), pads=[1] * 4)
    x = linear_conv(g, x, second, third, (8, 1, 3, 3), pads=[1] * 4, group=8)
    x = linear_conv(g, x, third, third, (8, 1, 6, 6), group=8)
    x = g.reshape(x, -1, 8)
    w_scale, w_zero = g.constant(0.003), g.constant(np.array(0, dtype=np.int8))
    x = g.node("QLinearMatMul", x, *third, levels(g, 8, 6), w_scale, w_zero, *last)
    x = g.node("QLinearMatMul", x, *last, levels(g, 6, 4), w_scale, w_zero, *last)
    return g.node("DequantizeLinear", x, *last)


@idiom(7, 8, 10, 13, 17)
@idiom(7, 8, 13, constants_as="node")
def linear_operators(g):
    """What ONNX Runtime's quantiser writes between QLinearConvs where it is not asked for pairs; QGemm at the end."""

    def microsoft(op: str, *operands: str, **kw: object) -> str:
        return str(g.node(op, *operands, domain="com.microsoft", **kw))

    def convolution(x, given, made, *shape, **kw):
        return linear_conv(g, x, given, made, shape, **kw)

    first, second, third, last = (quantised(g, s) for s in (0.02, 0.05, 0.06, 0.1))
    x = g.node("QuantizeLinear", g.input(("batch", 3, 6, 6)), *first)
    x = convolution(x, first, second, 8, 3, 3, 3, pads=[1] * 4)
    y = convolution(x, second, third, 10, 8, 3, 3, pads=[1] * 4)
    y = microsoft("QLinearLeakyRelu", y, *third, *second, alpha=0.1)
    y = convolution(y, second, second, 8, 10, 1, 1)
    x = microsoft("QLinearAdd", x, *second, y, *second, *third)
    gate = microsoft("QLinearSigmoid", convolution(x, third, second, 8, 8, 1, 1), *second, *first)
    x = microsoft("QLinearMul", x, *third, gate, *first, *third)
    y = convolution(x, third, second, 6, 8, 1, 1)
    x = microsoft("QLinearConcat", *second, x, *third, y, *second, axis=1)
    x = microsoft("QLinearAveragePool", x, *second, *second, kernel_shape=[2, 2], strides=[2, 2])
    x = convolution(x, second, second, 8, 14, 3, 3, pads=[1] * 4)
    x = g.node("Flatten", microsoft("QLinearGlobalAveragePool", x, *second, *first))
    for made, channels, inputs in ((second, 6, 8), (last, 5, 6)):
        count = channels if g.opset >= 13 else 1  # a scale for each needs an axis
        scales = g.constant(g.rng.uniform(0.002, 0.004, count).astype(np.float32))
        weight = (levels(g, channels, inputs, most=SEVEN_BITS), scales, g.constant(np.zeros(count, dtype=np.int8)))
        values = g.constant(g.rng.integers(-300, 300, channels).astype(np.int32))
        given = first if made is second else second
        x = microsoft("QGemm", x, *given, *weight, values, *made, transB=1, alpha=0.5)
    return g.node("DequantizeLinear", microsoft("QLinearSoftmax", x, *last, *first, opset=g.opset), *first)
