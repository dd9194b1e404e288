"""Networks as tf2onnx and Keras write them: channels last, weights stored the other way about, shapes in int32."""

import numpy as np
from onnx import TensorProto

from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.graph.idioms import INT64_MAX, clip, idiom, reduce_mean, squeeze


def to_first(g: GraphBuilder, x: str) -> str:
    return g.transpose(x, 0, 3, 1, 2)


def to_last(g: GraphBuilder, x: str) -> str:
    return g.transpose(x, 0, 2, 3, 1)


def relu6(g: GraphBuilder, x: str) -> str:
    return str(g.node("Min", g.node("Relu", x), g.constant(6.0))) if g.opset < 11 else clip(g, x, 0.0, 6.0)


@idiom(3, 4, 9, 11, 13, 15)
def mobilenet_channels_last(g):
    """Every convolution between two transposes, kernels stored as HWIO, a depthwise kernel as (h, w, c, 1)."""
    x = g.input(("batch", 8, 8, 3))
    kernel = g.transpose(g.constant(g.normal(3, 3, 3, 8) / 5), 3, 2, 0, 1)
    x = to_last(g, g.node("Conv", to_first(g, x), kernel, auto_pad="SAME_UPPER", strides=[2, 2]))
    x = relu6(g, to_last(g, g.batch_norm(to_first(g, x), 8)))
    depthwise = g.transpose(g.constant(g.normal(3, 3, 8, 1) / 3), 2, 3, 0, 1)
    x = to_last(g, g.node("Conv", to_first(g, x), depthwise, auto_pad="SAME_UPPER", group=8))
    x = relu6(g, g.node("Add", x, g.weight(8, low=-0.5)))
    pointwise = g.transpose(g.constant(g.normal(1, 1, 8, 10) / 3), 3, 2, 0, 1)
    x = relu6(g, to_last(g, g.node("Conv", to_first(g, x), pointwise)))
    pooled = reduce_mean(g, x, 1, 2, keepdims=0)
    return g.node("Softmax", g.node("Add", g.matmul(pooled, 10, 5), g.weight(5)), axis=1)


@idiom(3, 4, 9, 13)
def depthwise_with_a_multiplier(g):
    """A (h, w, c, m) kernel reshaped to (h, w, 1, c m) and transposed; m outputs for each channel."""
    x = g.node("Relu", g.conv(to_first(g, g.input(("batch", 6, 6, 3))), 3, 6))
    kernel = g.reshape(g.constant(g.normal(3, 3, 6, 2) / 3), 3, 3, 1, 12)
    x = g.node("Conv", x, g.transpose(kernel, 3, 2, 0, 1), group=6, pads=[1] * 4)
    x = g.node("Relu", g.conv(x, 12, 7, kernel=1))
    return g.gemm(squeeze(g, g.node("GlobalAveragePool", x), 2, 3), 7, 3)


@idiom(2, 3, 9, 11, 13)
def flattened_channels_last(g):
    """Keras Flatten: (h, w, c) in memory order, so that the rows of the dense layer are interleaved."""
    x = to_last(g, g.node("Relu", g.conv(to_first(g, g.input(("batch", 4, 4, 3))), 3, 6)))
    flat = g.node("Relu", g.node("Add", g.matmul(g.reshape(x, -1, 96), 96, 8), g.weight(8)))
    return g.node("Sigmoid", g.node("Add", g.matmul(flat, 8, 3), g.weight(3)))


@idiom(3, 4, 11, 13, 17)
def squeeze_and_excite_channels_last(g):
    """Keras reshapes the pooled vector to (1, 1, c) and convolves it."""
    x = to_last(g, g.conv(to_first(g, g.input(("batch", 6, 6, 3))), 3, 8))
    x = g.node("Mul", x, g.node("Sigmoid", x))
    pooled = g.reshape(reduce_mean(g, x, 1, 2, keepdims=0), -1, 1, 1, 8)
    gate = g.node("Relu", g.conv(to_first(g, pooled), 8, 4, kernel=1))
    gate = to_last(g, g.node("Sigmoid", g.conv(gate, 4, 8, kernel=1)))
    return g.conv(to_first(g, g.node("Mul", x, gate)), 8, 4, kernel=1)


@idiom(2, 3, 11, 13)
def dilated_by_space_to_batch(g):
    """tf.nn.conv2d with dilation: pad, cut into interleaved images, convolve, put together again."""
    x = g.node("Relu", g.conv(g.input((1, 3, 8, 8)), 3, 6))
    x = g.node("Pad", to_last(g, x), g.ints(0, 2, 2, 0, 0, 2, 2, 0))
    x = g.transpose(g.reshape(x, 1, 6, 2, 6, 2, 6), 2, 4, 0, 1, 3, 5)
    x = to_first(g, g.reshape(x, 4, 6, 6, 6))
    x = to_last(g, g.node("Conv", x, g.weight(7, 6, 3, 3)))
    x = g.transpose(g.reshape(x, 2, 2, 1, 4, 4, 7), 2, 3, 0, 4, 1, 5)
    return g.conv(to_first(g, g.node("Relu", g.reshape(x, 1, 8, 8, 7))), 7, 4, kernel=1)


@idiom(2, 3, 11, 13, 17)
def resized_by_a_computed_size(g):
    """tf.image.resize to tf.shape(x)[1:3] * 2, computed in int32."""
    x = g.node("Relu", g.conv(to_first(g, g.input(("batch", 6, 6, 3))), 3, 8))
    size = g.node("Cast", g.node("Shape", to_last(g, x)), to=TensorProto.INT32)
    size = g.node("Slice", size, g.ints(1), g.ints(3), g.ints(0))
    doubled = g.node("Cast", g.node("Mul", size, g.constant(np.array([2, 2], dtype=np.int32))), to=TensorProto.INT64)
    head = g.node("Slice", g.node("Shape", x), g.ints(0), g.ints(2), g.ints(0))
    empty = g.constant(np.zeros(0, dtype=np.float32))
    sizes = g.node("Concat", head, doubled, axis=0)
    big = g.node("Resize", x, empty, empty, sizes, mode="linear", coordinate_transformation_mode="asymmetric")
    return g.conv(g.node("Relu", g.conv(big, 8, 6)), 6, 4)


@idiom(2, 3, 11, 13)
def transposed_convolution_cut_to_size(g):
    """Conv2DTranspose: a ConvTranspose, then a Slice to the size that a chain of shapes computes."""
    x = g.node("Relu", g.conv(to_first(g, g.input(("batch", 5, 5, 3))), 3, 6))
    size = g.node("Cast", g.node("Shape", to_last(g, x)), to=TensorProto.INT32)
    rows, columns = (
        g.node("Mul", g.node("Slice", size, g.ints(i), g.ints(i + 1), g.ints(0)), g.constant(np.array([2], np.int32)))
        for i in (1, 2)
    )
    x = g.node("ConvTranspose", x, g.weight(6, 5, 3, 3), strides=[2, 2])  # (batch, 5, 11, 11)
    ends = g.node("Cast", g.node("Concat", rows, columns, axis=0), to=TensorProto.INT64)
    x = g.node("Slice", x, g.ints(0, 0), ends, g.ints(2, 3))
    return g.conv(g.node("Add", x, g.weight(1, 5, 1, 1)), 5, 4)


@idiom(4, 7, 13, 17)
def attention_by_einsum(g):
    """Keras MultiHeadAttention: weights of three axes (width, heads, depth), all products as Einsum."""
    x = g.linear(g.input((2, 5, 6)), 6, 8)
    q, k, v = (
        g.node(
            "Add",
            g.node("Einsum", x, g.constant(g.normal(8, 2, 4) / 3), equation="abc,cde->abde"),
            g.weight(2, 4, low=-0.5),
        )
        for _ in range(3)
    )
    scores = g.node("Einsum", k, g.node("Mul", q, g.constant(0.5)), equation="aecd,abcd->acbe")
    mixed = g.node("Einsum", g.node("Softmax", scores, axis=-1), v, equation="acbe,aecd->abcd")
    out = g.node("Einsum", mixed, g.constant(g.normal(2, 4, 8) / 3), equation="abcd,cde->abe")
    return g.node("Add", x, g.node("Add", out, g.weight(8, low=-0.5)))


@idiom(4, 6, 11, 13)
def attention_by_matmul(g):
    """tf2onnx turns the Einsum into reshapes: (width, heads x depth) products with the heads cut out afterwards."""
    x = g.input(("batch", 5, 6))
    q, k, v = (g.reshape(g.matmul(g.reshape(x, -1, 6), 6, 8), -1, 5, 2, 4) for _ in range(3))
    scores = g.node("MatMul", g.transpose(q, 0, 2, 1, 3), g.transpose(k, 0, 2, 3, 1))
    mixed = g.node(
        "MatMul", g.node("Softmax", g.node("Mul", scores, g.constant(0.5)), axis=3), g.transpose(v, 0, 2, 1, 3)
    )
    return g.matmul(g.reshape(g.transpose(mixed, 0, 2, 1, 3), -1, 8), 8, 4)


@idiom(1, 2, 11, 13, 17)
def convolution_of_a_line_by_unsqueezing(g):
    """Conv1D as a Conv2D over an axis of one."""
    x = squeeze(g, g.input(("batch", 9, 4)), 1, op="Unsqueeze")
    kernel = g.transpose(g.constant(g.normal(1, 3, 4, 8) / 3), 3, 2, 0, 1)
    x = g.node("Conv", to_first(g, x), kernel, auto_pad="SAME_LOWER")
    x = g.node("Relu", squeeze(g, to_last(g, x), 1))
    x = g.node("ReduceMax", x, axes=[1], keepdims=0) if g.opset < 18 else g.node("ReduceMax", x, g.ints(1), keepdims=0)
    return g.gemm(x, 8, 3)


@idiom(2, 3, 11)
def a_strided_slice_as_shortcut(g):
    """StridedSlice with begin, end and strides over all four axes at once, and tf.pad of channels."""
    x = g.node("Relu", g.conv(to_first(g, g.input((1, 6, 6, 3))), 3, 6))
    y = g.conv(x, 6, 10, strides=[2, 2], bias=False)
    last = to_last(g, x)
    thin = g.node("Slice", last, g.ints(0, 0, 0, 0), g.ints(*[INT64_MAX] * 4), g.ints(0, 1, 2, 3), g.ints(1, 2, 2, 1))
    wide = g.node("Pad", thin, g.ints(0, 0, 0, 2, 0, 0, 0, 2))
    return g.conv(g.node("Relu", g.node("Add", y, to_first(g, wide))), 10, 4)
