"""Networks as paddle2onnx writes them: all weights in Constant nodes or graph inputs, scalars as lists of one."""

import numpy as np
from onnx import TensorProto

from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.graph.idioms import clip, cut_out, idiom, squeeze, unsqueeze


def one(g: GraphBuilder, value: float) -> str:
    return g.constant(np.array([value], dtype=np.float32))


def hard_swish(g: GraphBuilder, x: str) -> str:
    return str(g.node("Div", g.node("Mul", x, clip(g, g.node("Add", x, one(g, 3.0)), 0.0, 6.0)), one(g, 6.0)))


@idiom(5, 6, 7, 9, 11, 13, constants_as="node")
@idiom(5, 6, 7, 11, ir_version=3)
def mobilenet_with_hard_swish(g):
    """Biases as (1, c, 1, 1) by Reshape, HardSigmoid gates, a dense layer as MatMul and Add behind a Reshape."""
    x = g.input(("batch", 3, 8, 8))
    x = g.node("Conv", x, g.weight(8, 3, 3, 3), strides=[2, 2], pads=[1] * 4, dilations=[1, 1], kernel_shape=[3, 3])
    x = hard_swish(g, g.batch_norm(x, 8))
    x = hard_swish(g, g.batch_norm(g.conv(x, 8, 8, group=8, bias=False), 8))
    gate = g.node("GlobalAveragePool", x)
    gate = g.node("Conv", gate, g.weight(4, 8, 1, 1))
    gate = g.node("Relu", g.node("Add", gate, g.reshape(g.weight(4), 1, 4, 1, 1)))
    gate = g.node("Add", g.node("Conv", gate, g.weight(8, 4, 1, 1)), g.reshape(g.weight(8), 1, 8, 1, 1))
    x = g.node("Mul", x, g.node("HardSigmoid", gate, alpha=0.2, beta=0.5))
    x = hard_swish(g, g.conv(x, 8, 12, kernel=1))
    x = g.reshape(g.node("GlobalAveragePool", x), -1, 12)
    return g.node("Softmax", g.node("Add", g.matmul(x, 12, 5), g.weight(5)), axis=1)


@idiom(3, 4, 9, 11, 13, constants_as="node")
def text_detection_neck(g):
    """DB: levels upsampled by scales, summed and joined, a transposed convolution with its bias added behind it."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 8))
    small = g.conv(x, 8, 8, strides=[2, 2])
    scales = g.constant(np.array([1, 1, 2, 2], dtype=np.float32))
    if g.opset < 10:
        big = g.node("Upsample", small, scales, mode="nearest")
    else:
        empty = g.constant(np.zeros(0, dtype=np.float32))
        big = g.node("Resize", small, empty, scales, mode="nearest", coordinate_transformation_mode="asymmetric")
    joined = g.node("Concat", g.node("Sum", x, big) if g.opset < 10 else g.node("Add", x, big), big, axis=1)
    up = g.node("ConvTranspose", joined, g.weight(16, 6, 2, 2), strides=[2, 2])
    up = g.node("Relu", g.batch_norm(g.node("Add", up, g.reshape(g.weight(6), 1, 6, 1, 1)), 6))
    return g.node("Sigmoid", g.node("Conv", up, g.weight(1, 6, 1, 1)))


@idiom(2, 4, 9, 11, 13, constants_as="node")
def recognition_by_a_sequence(g):
    """CRNN of PaddleOCR: squeezed to columns, a GRU or two, the sizes for a reshape computed in int32."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 2, 8)), 3, 8))
    x = squeeze(g, g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 2)
    columns = g.transpose(x, 2, 0, 1)
    w, r = g.constant(0.3 * g.normal(1, 18, 8)), g.constant(0.3 * g.normal(1, 18, 6))
    y = squeeze(g, g.node("GRU", columns, w, r, g.weight(1, 36, low=-0.5), hidden_size=6, linear_before_reset=1), 1)
    size = g.node("Cast", g.node("Shape", y), to=TensorProto.INT32)
    flat = g.node(
        "Cast", g.node("Concat", cut_out(g, size, 0, 1, 2), g.constant(np.array([24], np.int32)), axis=0), to=7
    )
    flat = g.node("Reshape", g.transpose(y, 1, 0, 2), flat)
    return g.node("Add", g.matmul(g.node("Relu", g.node("Add", g.matmul(flat, 24, 9), g.weight(9))), 9, 4), g.weight(4))


@idiom(5, 7, 11, 13, constants_as="node")
def attention_of_svtr(g):
    """qkv in one product, its parts by Slice and Squeeze, the scale as a list of one, an MLP with an exact gelu."""
    x = g.transpose(g.reshape(g.conv(g.input((1, 3, 4, 4)), 3, 8), 1, 8, 16), 0, 2, 1)
    five = g.transpose(g.reshape(g.linear(x, 8, 24), 0, 16, 3, 2, 4), 2, 0, 3, 1, 4)
    q, k, v = (squeeze(g, cut_out(g, five, 0, i, i + 1), 0) for i in range(3))
    scores = g.node("MatMul", g.node("Mul", q, one(g, 0.5)), g.transpose(k, 0, 1, 3, 2))
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=3), v)
    x = g.node("Add", x, g.linear(g.reshape(g.transpose(mixed, 0, 2, 1, 3), 0, 16, 8), 8, 8))
    y = g.linear(x, 8, 12)
    gelu = g.node("Mul", y, g.node("Add", g.node("Erf", g.node("Div", y, one(g, 2**0.5))), one(g, 1.0)))
    return g.linear(g.node("Mul", gelu, one(g, 0.5)), 12, 4)


@idiom(2, 3, 7, 11, constants_as="node")
def shuffled_in_two_branches(g):
    """PP-LCNet and ShuffleNet: a shuffle by Reshape and Transpose with all sizes written down."""
    x = g.conv(g.input((1, 3, 4, 4)), 3, 8)
    x = g.node("Concat", g.node("Relu", x), g.conv(x, 8, 8, kernel=1), axis=1)
    x = g.reshape(g.transpose(g.reshape(x, 1, 2, 8, 4, 4), 0, 2, 1, 3, 4), 1, 16, 4, 4)
    return g.conv(g.node("LeakyRelu", unsqueeze(g, squeeze(g, x, 0), 0), alpha=0.1), 16, 4)
