"""Two-node graphs for every op that has a rule: a layer that makes eight channels, the op, a layer that reads them.

`@case` names the ops that a function stands for, the opsets in which their form changed, the source and the outcome.
The function puts the op behind the source and returns what the reading layer gets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.engine.graph.graph_builder import GraphBuilder

CHANNELS = 8
Placed = str | tuple[str, int] | tuple[str, int, str]
"""What the consumer reads; its channels, if no longer eight; the kind of consumer, if not that of the source."""
Place = Callable[[GraphBuilder, str, str], Placed]

_SOURCES: dict[str, Callable[[GraphBuilder], str]] = {
    "image": lambda g: g.conv(g.input((2, 3, 6, 6)), 3, CHANNELS),  # (2, 8, 6, 6)
    "tokens": lambda g: g.linear(g.input((2, 5, 6)), 6, CHANNELS),  # (2, 5, 8)
    "vector": lambda g: g.gemm(g.input((2, 6)), 6, CHANNELS),  # (2, 8)
}
_CONSUMERS: dict[str, Callable[[GraphBuilder, str, int], str]] = {
    "image": lambda g, y, channels: g.conv(y, channels, 4),
    "tokens": lambda g, y, channels: g.linear(y, channels, 4),
    "vector": lambda g, y, channels: g.gemm(y, channels, 4),
    "volume": lambda g, y, channels: g.conv(y, channels, 4, rank=3),
    "line": lambda g, y, channels: g.conv(y, channels, 4, rank=1),
    "output": lambda g, y, channels: y,
}


@dataclass(frozen=True)
class Case:
    """`pinned` is a part of the reason why the source's channels stay, or empty where they can go. `waived`: pinned by
    default, free where exactness may be waived."""

    op: str
    name: str
    opset: int
    source: str
    pinned: str
    waived: bool
    place: Place

    def __str__(self) -> str:
        return (
            f"{self.op}-{self.name}-{self.opset}" if self.name.lower() != self.op.lower() else f"{self.op}-{self.opset}"
        )

    def model(self) -> onnx.ModelProto:
        g = GraphBuilder(self.opset, seed=sum(map(ord, self.op)), ir_version=11 if self.opset > 20 else 8)
        placed = self.place(g, _SOURCES[self.source](g), self.op)
        given = (placed,) if isinstance(placed, str) else placed
        y, channels, consumer = (*given, *(CHANNELS, self.source)[len(given) - 1 :])
        return g.model(_CONSUMERS[consumer](g, y, channels))


CASES: list[Case] = []


def case(
    *ops: str, opsets: tuple[int, ...] = (17,), source: str = "image", pinned: str = "", waived: bool = False
) -> Callable[[Place], Place]:
    def register(place: Place) -> Place:
        name = place.__name__.strip("_")
        CASES.extend(Case(op, name, opset, source, pinned, waived, place) for op in ops for opset in opsets)
        return place

    return register


def floats(g: GraphBuilder, x: str) -> str:
    return str(g.node("Cast", x, to=TensorProto.FLOAT))


def flags(g: GraphBuilder, x: str) -> str:
    return str(g.node("Greater", x, g.constant(0.1)))


# ---------------------------------------------------------------------------------------------- element by element


@case(
    "Abs",
    "Cos",
    "Elu",
    "Exp",
    "Floor",
    "Ceil",
    "HardSigmoid",
    "LeakyRelu",
    "Neg",
    "Relu",
    "Selu",
    "Sigmoid",
    opsets=(7,),
)
@case("Sin", "Softplus", "Softsign", "Tan", "Tanh", "Identity", opsets=(7,))
@case("Erf", "Sign", "Sinh", "Cosh", "Asinh", opsets=(9,))
@case("Celu", "Round", "Shrink", "ThresholdedRelu", "Atan", "HardSwish", "Relu", "LeakyRelu", "Abs", opsets=(17,))
@case("Gelu", "Mish", opsets=(20,))
@case("Swish", opsets=(24,))
def unary(g, x, op):
    return g.node(op, x)


@case("Acos", "Asin", "Atanh", "Log", "Reciprocal", "Sqrt")
def unary_on_the_unit_interval(g, x, op):
    return g.node(op, g.node("Sigmoid", x))


@case("Acosh")
def unary_above_one(g, x, op):
    return g.node(op, g.node("Add", g.node("Exp", x), g.constant(1.0)))


@case("IsNaN", "IsInf", opsets=(10, 20))
def classified(g, x, op):
    return g.node("Mul", x, floats(g, g.node("Not", g.node(op, x))))


@case("Not")
def negated(g, x, op):
    return floats(g, g.node("Not", flags(g, x)))


@case("BitwiseNot", opsets=(18,))
def inverted_bits(g, x, op):
    return floats(g, g.node(op, g.node("Cast", x, to=TensorProto.INT32)))


@case("Cast", opsets=(7, 9, 13, 19))
def cast(g, x, op):
    return floats(g, g.node("Cast", x, to=TensorProto.DOUBLE))


@case("CastLike", opsets=(15,))
def cast_like(g, x, op):
    return floats(g, g.node("CastLike", x, g.constant(np.zeros(1, dtype=np.float64))))


@case("Clip", opsets=(7, 11, 13))
def clip(g, x, op):
    if g.opset < 11:
        return g.node("Clip", x, min=-0.3, max=0.5)
    return g.node("Clip", x, g.constant(-0.3), g.constant(0.5))


@case("Dropout", opsets=(7, 12, 13))
def dropout(g, x, op):
    if g.opset < 12:
        return g.node("Dropout", x, ratio=0.3)
    return g.node("Dropout", x, g.constant(0.3), g.constant(np.array(False)))


@case("Dropout", opsets=(7, 10, 13))
def dropout_with_mask(g, x, op):
    y, mask = g.node("Dropout", x, outputs=2)
    return g.node("Add", y, floats(g, mask))


@case("Add", "Mul", "Sub", "Div", opsets=(7, 13, 14))
@case("Max", "Min", "Mean", "Sum", opsets=(8, 13))
def arithmetic_with_a_channel_vector(g, x, op):
    return g.node(op, x, g.weight(CHANNELS, 1, 1, low=0.5))


@case("Add", "Div", opsets=(7,))
def arithmetic_with_a_scalar(g, x, op):
    return g.node(op, g.constant(2.0), x)


@case("Mul", "Sub", "Max")
def arithmetic_with_the_whole_shape(g, x, op):
    return g.node(op, g.weight(2, CHANNELS, 6, 6), x)


@case("Add", "Mul", source="tokens")
def arithmetic_with_a_trailing_vector(g, x, op):
    return g.node(op, x, g.weight(CHANNELS, low=0.5))


@case("Pow", opsets=(7, 12, 15))
def power(g, x, op):
    return g.node("Pow", g.node("Sigmoid", x), g.weight(CHANNELS, 1, 1, low=1.0))


@case("PRelu", opsets=(7, 9, 16))
def parametric_relu(g, x, op):
    return g.node("PRelu", x, g.weight(CHANNELS, 1, 1, low=0.1))


@case("Mod", opsets=(10, 13))
def remainder(g, x, op):
    return g.node("Mod", x, g.weight(CHANNELS, 1, 1, low=2.0), fmod=1)


@case("And", "Or", "Xor", opsets=(7,))
def logic(g, x, op):
    return floats(g, g.node(op, flags(g, x), g.constant(g.rng.random((CHANNELS, 1, 1)) < 0.5)))


@case("Greater", "Less", "Equal", opsets=(7, 9, 11, 13))
@case("GreaterOrEqual", "LessOrEqual", opsets=(12, 16))
def comparison(g, x, op):
    if op == "Equal" and g.opset < 11:
        return floats(g, g.node(op, flags(g, x), g.constant(g.rng.random((CHANNELS, 1, 1)) < 0.5)))
    return floats(g, g.node(op, x, g.weight(CHANNELS, 1, 1)))


@case("BitShift", opsets=(11,))
def shifted_bits(g, x, op):
    small = g.node("Cast", g.node("Abs", x), to=TensorProto.UINT8)
    by = g.constant(g.rng.integers(0, 3, (CHANNELS, 1, 1)).astype(np.uint8))
    return floats(g, g.node(op, small, by, direction="LEFT"))


@case("BitwiseAnd", "BitwiseOr", "BitwiseXor", opsets=(18,))
def bits(g, x, op):
    mask = g.constant(g.rng.integers(0, 8, (CHANNELS, 1, 1)).astype(np.int32))
    return floats(g, g.node(op, g.node("Cast", x, to=TensorProto.INT32), mask))


@case("Where", opsets=(9, 16))
def chosen_by_a_condition(g, x, op):
    return g.node("Where", flags(g, x), x, g.weight(CHANNELS, 1, 1))


@case("Where")
def chosen_by_a_constant(g, x, op):
    return g.node("Where", g.constant(g.rng.random((CHANNELS, 1, 1)) < 0.5), x, g.constant(0.5))


@case("RandomNormalLike", "RandomUniformLike", opsets=(7,))
@case("Bernoulli", opsets=(15,))
def noise(g, x, op):
    like = g.node("Sigmoid", x) if op == "Bernoulli" else x
    return g.node("Add", x, g.node("Mul", g.node(op, like, seed=1.0), g.constant(0.0)))


# ---------------------------------------------------------------------------------------------- quantisation


@case("QuantizeLinear", "DequantizeLinear", opsets=(10, 13, 19, 21))
def quantised_and_back(g, x, op):
    scale, zero = g.constant(0.05), g.constant(np.array(128, dtype=np.uint8))
    return g.node("DequantizeLinear", g.node("QuantizeLinear", x, scale, zero), scale, zero)


@case("QuantizeLinear", "DequantizeLinear", opsets=(13, 19))
def quantised_per_channel(g, x, op):
    scale = g.weight(CHANNELS, low=0.02)
    zero = g.constant(np.zeros(CHANNELS, dtype=np.int8))
    return g.node("DequantizeLinear", g.node("QuantizeLinear", x, scale, zero, axis=1), scale, zero, axis=1)


@case("DynamicQuantizeLinear", opsets=(11,))
def quantised_dynamically(g, x, op):
    y, scale, zero = g.node("DynamicQuantizeLinear", x, outputs=3)
    return g.node("DequantizeLinear", y, scale, zero)


# ---------------------------------------------------------------------------------------------- layers


@case("Conv", opsets=(7, 11, 22))
def conv(g, x, op):
    return g.node("Relu", g.conv(x, CHANNELS, CHANNELS, strides=[2, 2]))


@case("Conv")
def conv_grouped(g, x, op):
    return g.conv(x, CHANNELS, 12, group=2), 12


@case("Conv")
def conv_depthwise(g, x, op):
    return g.conv(x, CHANNELS, CHANNELS, group=CHANNELS)


@case("Conv", pinned="slides over these channels", waived=True)
def conv_over_channels(g, x, op):
    """ECA: the attention of a channel follows from the means of its neighbours."""
    means = g.reshape(g.node("GlobalAveragePool", x), 2, 1, CHANNELS)
    attention = g.node("Sigmoid", g.node("Conv", means, g.weight(1, 1, 3), pads=[1, 1]))
    return g.node("Mul", x, g.reshape(attention, 2, CHANNELS, 1, 1))


@case("Conv", pinned="slides over this axis")
def conv_over_channels_to_several(g, x, op):
    rows = g.reshape(g.node("GlobalAveragePool", x), 2, 1, CHANNELS)
    seen = g.node("Conv", rows, g.weight(2, 1, 3), pads=[1, 1])
    return g.node("Mul", x, g.reshape(g.node("ReduceMean", seen, axes=[1]), 2, CHANNELS, 1, 1))


@case("Conv")
def conv_depthwise_with_multiplier(g, x, op):
    return g.conv(x, CHANNELS, 2 * CHANNELS, group=CHANNELS), 2 * CHANNELS


@case("Conv")
def conv_without_padding(g, x, op):
    w = g.weight(5, CHANNELS, 2, 2)
    return g.node("Conv", x, w, auto_pad="VALID", dilations=[2, 2]), 5


@case("Conv", "ConvTranspose", source="vector")
def conv_of_a_learnt_image(g, x, op):
    """The first layer of StyleGAN2: its kernel is scaled by a style, its image is a constant."""
    learnt, own = ((CHANNELS, 5), (CHANNELS, 1)) if op == "ConvTranspose" else ((5, CHANNELS), (1, CHANNELS))
    style = g.reshape(g.node("ReduceMean", x, axes=[0]), *own, 1, 1)
    w = g.node("Mul", g.weight(*learnt, 3, 3), style)
    return g.node(op, g.weight(2, CHANNELS, 6, 6), w, pads=[1] * 4), 5, "image"


@case("Conv")
def conv_grouped_of_a_learnt_image(g, x, op):
    style = g.reshape(g.node("ReduceMean", x, axes=[0, 2, 3]), 2, 1, 4, 1, 1)
    w = g.reshape(g.node("Mul", g.weight(2, 3, 4, 3, 3), style), 6, 4, 3, 3)
    return g.node(op, g.weight(2, CHANNELS, 6, 6), w, pads=[1] * 4, group=2), 6


@case("ConvTranspose", opsets=(7, 11))
def conv_transpose(g, x, op):
    w = g.weight(CHANNELS, 6, 2, 2)
    return g.node("ConvTranspose", x, w, g.weight(6, low=-0.5), strides=[2, 2]), 6


@case("ConvTranspose")
def conv_transpose_grouped(g, x, op):
    w = g.weight(CHANNELS, 3, 2, 2)
    return g.node("ConvTranspose", x, w, g.weight(6, low=-0.5), strides=[2, 2], group=2), 6


@case("ConvTranspose")
def conv_transpose_depthwise(g, x, op):
    w = g.weight(CHANNELS, 2, 3, 3)
    return g.node("ConvTranspose", x, w, g.weight(2 * CHANNELS, low=-0.5), pads=[1] * 4, group=CHANNELS), 2 * CHANNELS


@case("DeformConv", opsets=(19, 22))
def deformable_conv(g, x, op):
    offsets = g.conv(g.input((2, 3, 6, 6)), 3, 18)
    mask = g.node("Sigmoid", g.conv(g.inputs[-1].name, 3, 9))
    w = g.weight(CHANNELS, CHANNELS, 3, 3)
    return g.node("DeformConv", x, w, offsets, g.weight(CHANNELS, low=-0.5), mask, pads=[1] * 4, kernel_shape=[3, 3])


def quantised(g: GraphBuilder, x: str) -> tuple[str, str, str]:
    """x as uint8, with its scale and zero point."""
    scale, zero = g.constant(0.03), g.constant(np.array(120, dtype=np.uint8))
    return g.node("QuantizeLinear", x, scale, zero), scale, zero


def quantised_weight(g: GraphBuilder, *shape: int) -> str:
    return g.constant(g.rng.integers(-127, 128, shape).astype(np.int8))


@case("ConvInteger", opsets=(10,))
def conv_of_integers(g, x, op):
    q, _, zero = quantised(g, x)
    y = g.node("ConvInteger", q, quantised_weight(g, CHANNELS, CHANNELS, 3, 3), zero, pads=[1] * 4)
    return g.node("Mul", floats(g, y), g.constant(0.001))


@case("QLinearConv", opsets=(10,))
def conv_quantised(g, x, op):
    q, scale, zero = quantised(g, x)
    w = quantised_weight(g, CHANNELS, CHANNELS, 3, 3)
    w_zero = g.constant(np.zeros(CHANNELS, dtype=np.int8))
    bias = g.constant(g.rng.integers(-50, 50, CHANNELS).astype(np.int32))
    y = g.node(op, q, scale, zero, w, g.weight(CHANNELS, low=0.01), w_zero, g.constant(0.2), zero, bias, pads=[1] * 4)
    return g.node("DequantizeLinear", y, g.constant(0.2), zero)


@case("MatMulInteger", opsets=(10,), source="tokens")
def matmul_of_integers(g, x, op):
    q, _, zero = quantised(g, x)
    y = g.node("MatMulInteger", q, quantised_weight(g, CHANNELS, CHANNELS), zero)
    return g.node("Mul", floats(g, y), g.constant(0.001))


@case("MatMulInteger", opsets=(10,), source="tokens")
def matmul_of_integers_per_column(g, x, op):
    q, _, zero = quantised(g, x)
    columns = g.constant(g.rng.integers(-3, 3, CHANNELS).astype(np.int8))
    y = g.node("MatMulInteger", q, quantised_weight(g, CHANNELS, CHANNELS), zero, columns)
    return g.node("Mul", floats(g, y), g.constant(0.001))


@case("QLinearMatMul", opsets=(10,), source="tokens")
def matmul_quantised(g, x, op):
    q, scale, zero = quantised(g, x)
    w_zero = g.constant(np.array(0, dtype=np.int8))
    w = quantised_weight(g, CHANNELS, CHANNELS)
    y = g.node(op, q, scale, zero, w, g.constant(0.01), w_zero, g.constant(0.1), zero)
    return g.node("DequantizeLinear", y, g.constant(0.1), zero)


@case("Gemm", opsets=(7, 9, 11, 13), source="vector")
def gemm(g, x, op):
    return g.gemm(x, CHANNELS, 6), 6


@case("Gemm", source="vector")
def gemm_scaled_and_plain(g, x, op):
    c = g.weight(1, 6)
    return g.node("Gemm", x, g.constant(g.normal(CHANNELS, 6)), c, alpha=0.5, beta=2.0), 6


@case("Gemm", source="vector")
def gemm_transposed(g, x, op):
    columns = g.node("Gemm", g.weight(6, CHANNELS), x, g.weight(6, 1), transB=1)  # (6, 2)
    return g.transpose(columns, 1, 0), 6


@case("MatMul", opsets=(7, 9, 13), source="tokens")
def matmul(g, x, op):
    return g.matmul(x, CHANNELS, 6), 6


@case("MatMul", source="tokens")
def matmul_of_two_activations(g, x, op):
    attention = g.node("MatMul", x, g.transpose(x, 0, 2, 1))  # (2, 5, 5)
    return g.node("MatMul", attention, x)


@case("MatMul", source="tokens")
def matmul_with_a_vector(g, x, op):
    y = g.node("MatMul", x, g.weight(CHANNELS, low=-0.5))  # (2, 5)
    return y, 5, "vector"


@case("Einsum", opsets=(12,), source="tokens")
def einsum(g, x, op):
    return g.node("Einsum", x, g.constant(g.normal(CHANNELS, 6)), equation="btc,cd->btd"), 6


@case("Einsum", opsets=(12,), source="tokens")
def einsum_implicit(g, x, op):
    return g.transpose(g.node("Einsum", x, g.constant(g.normal(CHANNELS, 6)), equation="btc,ca"), 1, 2, 0), 6  # a, b, t


def in_heads(g: GraphBuilder, x: str, heads: int) -> str:
    """(2, 5, C) -> (2, heads, 5, C / heads)."""
    return g.transpose(g.reshape(x, 2, 5, heads, -1), 0, 2, 1, 3)


@case("Attention", opsets=(23, 24), source="tokens")
def attention(g, x, op):
    """The source makes the queries: heads of width four, with a mask for each head and the default scale."""
    given = g.inputs[0].name
    k, v = (in_heads(g, g.linear(given, 6, CHANNELS), 2) for _ in range(2))
    y = g.node("Attention", in_heads(g, x, 2), k, v, g.weight(1, 2, 5, 5))
    return g.reshape(g.transpose(y, 0, 2, 1, 3), 2, 5, CHANNELS)


@case("Attention", opsets=(23,), source="tokens")
def attention_of_shared_keys(g, x, op):
    """Two heads of keys and values for four heads of queries, causal, with a scale of its own."""
    given = g.inputs[0].name
    k, v = (in_heads(g, g.linear(given, 6, 4), 2) for _ in range(2))
    y = g.node("Attention", in_heads(g, x, 4), k, v, is_causal=1, scale=0.5)
    return g.reshape(g.transpose(y, 0, 2, 1, 3), 2, 5, CHANNELS)


@case("Attention", opsets=(23,), source="tokens", pinned="has its heads and their width in one axis")
def attention_in_three_axes(g, x, op):
    return g.node("Attention", x, x, x, q_num_heads=2, kv_num_heads=2)


@case("RotaryEmbedding", opsets=(23,), source="tokens", pinned="rotates these channels")
def rotary_embedding_of_one_head(g, x, op):
    cos, sin = (g.weight(2, 5, 4, low=-0.5) for _ in range(2))
    y = g.node("RotaryEmbedding", in_heads(g, x, 1), cos, sin)
    return g.reshape(g.transpose(y, 0, 2, 1, 3), 2, 5, CHANNELS)


@case("RotaryEmbedding", opsets=(23,), source="tokens")
def rotary_embedding_of_many_heads(g, x, op):
    """The width of a head stays; whole heads can go."""
    cos, sin = (g.weight(2, 5, 2, low=-0.5) for _ in range(2))
    y = g.node("RotaryEmbedding", in_heads(g, x, 2), cos, sin)
    return g.reshape(g.transpose(y, 0, 2, 1, 3), 2, 5, CHANNELS)


@case("LSTM", "GRU", "RNN", opsets=(7, 14), source="tokens")
def recurrent(g, x, op):
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    w, r = g.constant(0.3 * g.normal(1, gates * 5, CHANNELS)), g.constant(0.3 * g.normal(1, gates * 5, 5))
    y = g.node(op, x, w, r, g.weight(1, 2 * gates * 5, low=-0.5), hidden_size=5)  # (2, 1, 5, 5)
    return g.node("Squeeze", y, *([g.ints(1)] if g.opset >= 13 else []), **({} if g.opset >= 13 else {"axes": [1]})), 5


@case("LSTM", source="tokens")
def recurrent_both_ways(g, x, op):
    w, r = g.constant(0.3 * g.normal(2, 20, CHANNELS)), g.constant(0.3 * g.normal(2, 20, 5))
    start = g.constant(g.normal(2, 5, 5))
    y, _, _ = g.node(op, x, w, r, "", "", start, start, outputs=3, hidden_size=5, direction="bidirectional")
    return g.reshape(g.transpose(y, 0, 2, 1, 3), 0, 0, -1), 10


# ---------------------------------------------------------------------------------------------- normalisation


@case("BatchNormalization", opsets=(7, 9, 14, 15))
def batch_normalisation(g, x, op):
    return g.batch_norm(x, CHANNELS)


@case("BatchNormalization", source="vector")
def batch_normalisation_of_vectors(g, x, op):
    return g.batch_norm(x, CHANNELS)


@case("InstanceNormalization", opsets=(7,))
def instance_normalisation(g, x, op):
    return g.node(op, x, g.weight(CHANNELS, low=0.5), g.weight(CHANNELS, low=-0.5))


@case("GroupNormalization", opsets=(18, 21))
def group_normalisation(g, x, op):
    size = 4 if g.opset < 21 else CHANNELS
    return g.node(op, x, g.weight(size, low=0.5), g.weight(size, low=-0.5), num_groups=4)


@case("GroupNormalization", opsets=(18, 21), pinned="averages over these channels", waived=True)
def group_normalisation_of_one_group(g, x, op):
    size = 1 if g.opset < 21 else CHANNELS
    return g.node(op, x, g.weight(size, low=0.5), g.weight(size, low=-0.5), num_groups=1)


@case("LayerNormalization", source="tokens", pinned="averages over these channels", waived=True)
def layer_normalisation(g, x, op):
    return g.node(op, x, g.weight(CHANNELS, low=0.5), g.weight(CHANNELS, low=-0.5))


@case("LayerNormalization", pinned="averages over these channels", waived=True)
def layer_normalisation_of_images(g, x, op):
    return g.node(op, x, g.weight(CHANNELS, 6, 6, low=0.5), g.weight(CHANNELS, 6, 6, low=-0.5), axis=1)


@case("RMSNormalization", opsets=(23,), source="tokens", pinned="averages over these channels", waived=True)
@case("SimplifiedLayerNormalization", source="tokens", pinned="averages over these channels", waived=True)
def rms_normalisation(g, x, op):
    return g.node(op, x, g.weight(CHANNELS, low=0.5), axis=-1)


@case("LpNormalization", opsets=(7, 22))
def lp_normalisation(g, x, op):
    return g.node(op, x, axis=1, p=2)


@case("MeanVarianceNormalization", opsets=(9, 13))
def mean_variance_normalisation_per_channel(g, x, op):
    return g.node(op, x, axes=[0, 2, 3])


@case("MeanVarianceNormalization", opsets=(13,), pinned="averages over these channels", waived=True)
def mean_variance_normalisation_over_channels(g, x, op):
    return g.node(op, x, axes=[1, 2, 3])


@case("LRN", opsets=(7,), pinned="sums neighbours over these channels", waived=True)
def local_response_normalisation(g, x, op):
    return g.node("LRN", x, size=3)


@case("Softmax", "LogSoftmax", opsets=(7, 11), pinned="compares these channels")
@case("Hardmax", opsets=(7,), pinned="compares these channels")
def softmax_over_all_from_channels_on(g, x, op):
    return g.node(op, x, axis=1)


@case("Softmax", "LogSoftmax", opsets=(13,), pinned="compares these channels")
def softmax_over_channels(g, x, op):
    return g.node(op, x, axis=1)


@case("Softmax", "LogSoftmax", "Hardmax", opsets=(7, 13))
def softmax_over_positions(g, x, op):
    return g.node(op, x, axis=3)


# ---------------------------------------------------------------------------------------------- pooling and resizing


@case("MaxPool", "AveragePool", opsets=(7, 10, 12, 19))
def pool(g, x, op):
    return g.node(op, x, kernel_shape=[2, 2], strides=[2, 2])


@case("MaxPool", "AveragePool", "LpPool")
def pooled_beside_the_channels(g, x, op):
    """AdaptiveAvgPool2d((None, 1)) of images whose columns stand in front, as in EasyOCR."""
    columns = g.node(op, g.transpose(x, 0, 3, 1, 2), kernel_shape=[1, 6], strides=[1, 6])
    return g.node("Squeeze", columns, g.ints(3)), CHANNELS, "tokens"


@case("MaxPool", pinned="counts positions across these channels")
def pooled_beside_the_channels_with_positions(g, x, op):
    y, indices = g.node(op, g.transpose(x, 0, 3, 1, 2), outputs=2, kernel_shape=[1, 6])
    return g.node("Squeeze", g.node("Add", y, floats(g, indices)), g.ints(3)), CHANNELS, "tokens"


@case("LpPool", opsets=(7, 11, 18))
def lp_pool(g, x, op):
    return g.node(op, x, kernel_shape=[2, 2], p=2)


@case("MaxPool", opsets=(12,), pinned="counts positions across these channels")
def max_pool_with_indices(g, x, op):
    y, indices = g.node("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    return g.node("Add", y, g.node("Mul", floats(g, indices), g.constant(0.01)))


@case("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", opsets=(7,))
def global_pool(g, x, op):
    return g.node(op, x)


@case("GridSample", opsets=(16, 20))
def grid_sample(g, x, op):
    return g.node(op, x, g.input((2, 4, 4, 2)), mode="bilinear" if g.opset < 20 else "linear")


@case("RoiAlign", opsets=(10, 16), pinned="")
def roi_align(g, x, op):
    boxes = g.constant(np.array([[0, 0, 3, 3], [1, 1, 5, 5]], dtype=np.float32))
    return g.node(op, x, boxes, g.ints(0, 1), output_height=3, output_width=3)


@case("MaxRoiPool", opsets=(7,))
def roi_pool(g, x, op):
    boxes = g.constant(np.array([[0, 0, 0, 3, 3], [1, 1, 1, 5, 5]], dtype=np.float32))
    return g.node(op, x, boxes, pooled_shape=[3, 3])


def no_floats(g: GraphBuilder) -> str:
    """An input that opset 11 does not yet allow to be left out."""
    return g.constant(np.zeros(0, dtype=np.float32))


@case("Resize", opsets=(10, 11, 13, 18, 19))
def resize_by_scales(g, x, op):
    scales = g.constant(np.array([1, 1, 2, 2], dtype=np.float32))
    if g.opset == 10:
        return g.node("Resize", x, scales)
    return g.node("Resize", x, "" if g.opset > 11 else no_floats(g), scales, mode="nearest")


@case("Resize", opsets=(11, 13, 18))
def resize_to_sizes(g, x, op):
    empty = [no_floats(g), no_floats(g)] if g.opset < 13 else ["", ""]
    return g.node("Resize", x, *empty, g.ints(2, CHANNELS, 9, 9), mode="linear")


@case("Resize", opsets=(18,))
def resize_some_axes(g, x, op):
    return g.node("Resize", x, "", "", g.ints(9, 9), mode="linear", axes=[2, 3])


@case("Upsample", opsets=(7, 9))
def upsample(g, x, op):
    if g.opset < 9:
        return g.node(op, x, scales=[1.0, 1.0, 2.0, 2.0])
    return g.node(op, x, g.constant(np.array([1, 1, 2, 2], dtype=np.float32)))


# ---------------------------------------------------------------------------------------------- reduction

_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")
_LOGS = ("ReduceLogSum", "ReduceLogSumExp", "ReduceProd")


def reduced(g: GraphBuilder, op: str, x: str, *axes: int, keepdims: int = 1) -> str:
    if g.opset >= (13 if op == "ReduceSum" else 18):
        return str(g.node(op, x, g.ints(*axes), keepdims=keepdims))
    return str(g.node(op, x, axes=list(axes), keepdims=keepdims))


@case(*_REDUCTIONS, *_LOGS, opsets=(7, 11, 13, 18))
def reduce_positions(g, x, op):
    return reduced(g, op, g.node("Sigmoid", x), 2, -1)


@case("ReduceMean", "ReduceSum", opsets=(11, 18))
def reduce_positions_away(g, x, op):
    return reduced(g, op, x, 2, 3, keepdims=0), CHANNELS, "vector"


@case("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", opsets=(7, 18))
def reduce_channels_exactly(g, x, op):
    return g.node("Mul", x, reduced(g, op, x, 1))


@case("ReduceMean", "ReduceMax", "ReduceMin", opsets=(7, 18), pinned="over these channels", waived=True)
@case("ReduceLogSumExp", "ReduceLogSum", "ReduceProd", opsets=(7, 18), pinned="over these channels", waived=True)
def reduce_channels(g, x, op):
    return g.node("Mul", x, reduced(g, op, g.node("Sigmoid", x), 1))


@case("ReduceMean", opsets=(9, 18))
@case("ReduceMax", opsets=(7, 18))
def reduce_channels_for_others(g, x, op):
    """A map of the positions: nothing in it is a channel any more."""
    return g.conv(reduced(g, op, x, 1), 1, CHANNELS)


@case("ReduceMean", opsets=(9, 18))
@case("ReduceMax", opsets=(7, 18))
def reduce_channels_and_positions_for_others(g, x, op):
    return g.conv(reduced(g, op, x, 1, 2, 3), 1, CHANNELS, kernel=1)


@case("ReduceMean", opsets=(9, 18))
@case("ReduceMax", opsets=(7, 18))
def reduce_channels_of_shaped_images(g, x, op):
    return g.reshape(reduced(g, op, x, 1, keepdims=0), 2, 36), 36, "vector"


@case("ReduceMean", "ReduceMax", opsets=(18,))
def reduce_channels_in_half_precision(g, x, op):
    half = g.node("Cast", x, to=TensorProto.FLOAT16)
    return g.conv(floats(g, reduced(g, op, half, 1)), 1, CHANNELS)


@case("ReduceMean", opsets=(7,), pinned="over these channels", waived=True)
def reduce_channels_for_others_before_a_factor_can_be_told_from_a_weight(g, x, op):
    return g.conv(reduced(g, op, x, 1), 1, CHANNELS)


@case("ReduceMean", opsets=(7, 18), pinned="over these channels", waived=True)
def reduce_channels_in_a_norm(g, x, op):
    """The mean is taken off again, behind a reshape and a scale."""
    mean = g.reshape(reduced(g, op, x, 1, keepdims=0), 2, 1, 6, 6)
    return g.node("Sub", x, g.node("Mul", mean, g.constant(0.5)))


@case("ReduceMax", opsets=(18,), pinned="over these channels", waived=True)
def reduce_channels_of_whole_numbers(g, x, op):
    whole = g.node("Cast", x, to=TensorProto.INT32)
    return g.conv(floats(g, reduced(g, op, whole, 1)), 1, CHANNELS)


@case("ReduceMean", "ReduceSum", opsets=(7, 18), source="tokens")
def reduce_everything(g, x, op):
    per_sample = reduced(g, "ReduceSum", x, 0, 1, 2, keepdims=0) if op == "ReduceSum" else reduced(g, op, x, 1)
    return g.node("Add", x, per_sample)


@case("ReduceSum", opsets=(7, 13))
def reduce_without_axes(g, x, op):
    return g.node("Mul", x, g.node("ReduceSum", x))


@case("ReduceSum", opsets=(13,))
def reduce_nothing(g, x, op):
    return g.node("ReduceSum", x, g.ints(), noop_with_empty_axes=1)


@case("ArgMax", "ArgMin", opsets=(7, 11, 13), pinned="returns the indices of these channels")
def index_of_the_extreme_channel(g, x, op):
    return g.node("Mul", x, floats(g, g.node(op, x, axis=1)))


@case("ArgMax", "ArgMin", opsets=(11,))
def index_of_the_extreme_position(g, x, op):
    return g.node("Mul", x, floats(g, g.node(op, x, axis=-1, keepdims=0)) and floats(g, g.node(op, x, axis=3)))


def topped(g: GraphBuilder, x: str, k: int, axis: int) -> tuple[str, str]:
    if g.opset < 10:
        return g.node("TopK", x, outputs=2, k=k, axis=axis)
    return g.node("TopK", x, g.ints(k), outputs=2, axis=axis)


@case("TopK", opsets=(7, 10, 11))
def largest_positions(g, x, op):
    values, indices = topped(g, x, 2, 3)
    return g.node("Add", values, floats(g, indices))


@case("TopK", opsets=(11,), pinned="orders these channels")
def largest_channels(g, x, op):
    return topped(g, x, 4, 1)[0], 4


@case("CumSum", opsets=(11, 14))
def cumulative_sum_over_channels(g, x, op):
    return g.node("CumSum", x, g.constant(np.array(1, dtype=np.int64)), reverse=1)


@case("CumSum", opsets=(14,))
def cumulative_sum_along_an_axis_in_a_list(g, x, op):
    return g.node("CumSum", x, g.ints(3))


@case("Trilu", opsets=(14,))
def triangle_of_positions(g, x, op):
    return g.node("Trilu", x, upper=0)


@case("Trilu", opsets=(14,), source="tokens", pinned="depends on these positions")
def triangle_of_channels(g, x, op):
    return g.node("Trilu", x)


# ---------------------------------------------------------------------------------------------- indexing


@case("Concat", opsets=(7, 11, 13))
def concat(g, x, op):
    return g.node("Concat", g.node("Relu", x), g.node("Tanh", x), axis=1), 2 * CHANNELS


@case("Concat")
def concat_with_an_input(g, x, op):
    return g.node("Concat", g.inputs[0].name, x, g.weight(2, 2, 6, 6), axis=-3), CHANNELS + 5


@case("Concat")
def concat_positions(g, x, op):
    return g.node("Concat", x, g.weight(2, CHANNELS, 6, 1), g.node("Relu", x), axis=3)


@case("Split", opsets=(7, 11, 13, 18))
def split(g, x, op):
    if g.opset < 13:
        parts = g.node("Split", x, outputs=2, axis=1, split=[3, 5])
    else:
        parts = g.node("Split", x, g.ints(3, 5), outputs=2, axis=1)
    return g.node("Concat", g.node("Relu", parts[1]), parts[0], axis=1)


@case("Split", opsets=(7, 13, 18))
def split_evenly(g, x, op):
    parts = g.node("Split", x, outputs=2, axis=1, **({"num_outputs": 2} if g.opset >= 18 else {}))
    return g.node("Mul", g.node("Sigmoid", parts[0]), parts[1]), CHANNELS // 2


def sliced(g: GraphBuilder, x: str, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> str:
    if g.opset < 10:
        return str(g.node("Slice", x, starts=starts, ends=ends, axes=axes))
    return str(g.node("Slice", x, g.ints(*starts), g.ints(*ends), g.ints(*axes), g.ints(*steps)))


@case("Slice", opsets=(7, 10, 11, 13))
def slice_of_channels(g, x, op):
    return sliced(g, x, [2], [-1], [1], [1]), 5


@case("Slice", opsets=(7, 10, 13))
def slice_of_channels_and_positions(g, x, op):
    return sliced(g, x, [1, 3], [5, 2**31], [-2, 1], [1, 1]), 5


@case("Slice", opsets=(10, 13))
def slice_with_a_stride(g, x, op):
    return sliced(g, x, [1, 0], [2**31, 6], [1, 2], [3, 2]), 3


@case("Slice", opsets=(13,))
def slice_backwards(g, x, op):
    return sliced(g, x, [-1], [-(2**31)], [1], [-1])


@case("Slice", opsets=(13,))
def slice_without_axes(g, x, op):
    return g.node("Slice", x, g.ints(0, 1), g.ints(2, 7)), 6


@case("Gather", opsets=(7, 11, 13))
def gather(g, x, op):
    return g.node("Gather", x, g.ints(7, 0, -3, 2, 2), axis=1), 5


@case("Gather")
def gather_one(g, x, op):
    """The channel that is picked stays, the seven others may go."""
    one = g.node("Gather", x, g.constant(np.array(-1, dtype=np.int64)), axis=1)  # (2, 6, 6)
    return g.node("Mul", x, squeezed(g, "Unsqueeze", one, 1))


@case("Gather", pinned="picks from these channels")
def gather_a_grid(g, x, op):
    pairs = g.node("Gather", x, g.constant(np.arange(8, dtype=np.int64).reshape(2, 4)), axis=1)  # (2, 2, 4, 6, 6)
    return g.node("ReduceMax", pairs, axes=[1], keepdims=0), 4


@case("Gather", pinned="picks from these channels", source="vector")
def gather_by_computed_indices(g, x, op):
    index = g.node("ArgMax", g.inputs[0].name, axis=1, keepdims=0)  # (2,)
    return g.node("Gather", x, index, axis=1), 2


@case("GatherElements", opsets=(11,), pinned="has an index for each of these channels")
def gather_elements(g, x, op):
    index = g.constant(np.zeros((2, CHANNELS, 6, 2), dtype=np.int64))
    return g.node(op, x, index, axis=3)


@case("GatherElements", opsets=(11,))
def gather_elements_by_indices_that_are_repeated(g, x, op):
    """x.gather(2, order.unsqueeze(1).expand(-1, channels, -1)), the rows that score best."""
    rows = g.node("ArgMax", g.inputs[0].name, axis=3)  # (2, 3, 6, 1)
    index = g.node("ReduceMax", rows, axes=[1]) if g.opset < 18 else rows  # (2, 1, 6, 1)
    return g.node(op, x, g.node("Expand", index, g.ints(1, CHANNELS, 1, 6)), axis=2)


@case("GatherElements", opsets=(11,), pinned="takes the first of these channels")
def gather_elements_of_the_first_channels(g, x, op):
    index = g.node("ReduceMax", g.node("ArgMax", g.inputs[0].name, axis=3), axes=[1])
    return g.node(op, x, g.node("Expand", index, g.ints(1, CHANNELS - 2, 1, 6)), axis=2), CHANNELS - 2


@case("ScatterElements", opsets=(11, 18), pinned="indexes these channels")
@case("Scatter", opsets=(9,), pinned="indexes these channels")
def scatter_elements(g, x, op):
    index = g.constant(np.zeros((2, CHANNELS, 6, 2), dtype=np.int64))
    return g.node(op, x, index, g.weight(2, CHANNELS, 6, 2), axis=3)


@case("GatherND", opsets=(11, 13))
def gather_nd(g, x, op):
    return g.node(op, x, g.constant(np.array([[1], [0]], dtype=np.int64)))


@case("GatherND", opsets=(12,), pinned="indexes these channels")
def gather_nd_of_channels(g, x, op):
    index = g.constant(np.array([[[1], [0], [5]]] * 2, dtype=np.int64))  # (2, 3, 1)
    return g.node(op, x, index, batch_dims=1), 3


@case("GatherND", opsets=(11, 13))
def gather_nd_of_channels_in_another_order(g, x, op):
    order = g.constant(np.array([[5], [0], [3], [1], [1], [-1]], dtype=np.int64))
    return g.transpose(g.node(op, g.transpose(x, 1, 0, 2, 3), order), 1, 0, 2, 3), 6


@case("GatherND", opsets=(11, 13))
def gather_nd_of_samples_and_channels(g, x, op):
    grid = [[[sample, channel] for channel in (4, 0, 6)] for sample in (1, 0)]
    return g.node(op, x, g.constant(np.array(grid, dtype=np.int64))), 3


@case("ScatterND", opsets=(11, 16, 18), source="vector")
def scatter_nd(g, x, op):
    columns = g.transpose(x, 1, 0)  # (8, 2)
    index = g.constant(np.array([[1], [6], [3]], dtype=np.int64))
    written = g.node(op, columns, index, g.node("Relu", g.node("Gather", columns, g.ints(1, 6, 3))))
    return g.transpose(written, 1, 0)


@case("ScatterND", opsets=(11,))
def scatter_nd_of_samples(g, x, op):
    return g.node(op, x, g.constant(np.array([[0]], dtype=np.int64)), g.weight(1, CHANNELS, 6, 6))


@case("Pad", opsets=(7, 11, 13, 18, 19))
def pad_positions(g, x, op):
    pads = [0, 0, 1, 0, 0, 0, 1, 2]
    return (
        g.node("Pad", x, pads=pads, mode="reflect") if g.opset < 11 else g.node("Pad", x, g.ints(*pads), mode="reflect")
    )


@case("Pad", opsets=(7, 11, 18))
def pad_channels(g, x, op):
    pads = [0, 2, 0, 0, 0, 3, 0, 0]
    return (g.node("Pad", x, pads=pads) if g.opset < 11 else g.node("Pad", x, g.ints(*pads), g.constant(0.5))), 13


@case("Pad", opsets=(18,))
def pad_named_axes(g, x, op):
    return g.node("Pad", x, g.ints(1, 0, 2, 1), "", g.ints(1, -1)), 11


@case("Pad", opsets=(13,), pinned="mirrors or crops these channels")
def pad_by_mirrored_channels(g, x, op):
    return g.node("Pad", x, g.ints(0, 1, 0, 0, 0, 1, 0, 0), mode="reflect"), 10


@case("Tile", opsets=(7, 13))
def tile(g, x, op):
    return g.node("Tile", x, g.ints(1, 2, 1, 2)), 16


@case("Tile", source="tokens")
def tile_of_a_squeezed_signal(g, x, op):
    gate = g.linear(g.inputs[0].name, 6, 1)  # (2, 5, 1)
    return g.node("Mul", x, g.node("Tile", gate, g.ints(1, 1, CHANNELS)))


@case("ReverseSequence", opsets=(10,), source="tokens")
def reverse_sequence(g, x, op):
    return g.node(op, x, g.ints(3, 5), time_axis=1, batch_axis=0)


# ---------------------------------------------------------------------------------------------- shape


@case("Reshape", opsets=(7, 13, 14, 21))
def reshape_to_a_sequence(g, x, op):
    return g.transpose(g.reshape(x, 2, CHANNELS, 36), 0, 2, 1), CHANNELS, "tokens"


@case("Reshape", opsets=(7, 14))
def reshape_with_wildcards(g, x, op):
    return g.reshape(x, 0, 0, -1), CHANNELS, "line"


@case("Reshape", opsets=(7, 14))
def reshape_to_vectors(g, x, op):
    return g.reshape(x, 2, CHANNELS * 36), CHANNELS * 36, "vector"


@case("Reshape", opsets=(14,))
def reshape_shuffling_channels(g, x, op):
    halves = g.transpose(g.reshape(x, 2, 2, 4, 6, 6), 0, 2, 1, 3, 4)
    return g.reshape(halves, 2, CHANNELS, 6, 6)


@case("Reshape", opsets=(14,))
def reshape_with_allowzero(g, x, op):
    return g.node("Reshape", x, g.ints(2, CHANNELS, 36), allowzero=1), CHANNELS, "line"


@case("Flatten", opsets=(7, 9, 11, 13))
def flatten(g, x, op):
    return g.node("Flatten", x), CHANNELS * 36, "vector"


@case("Flatten", source="tokens")
def flatten_to_the_last_axis(g, x, op):
    return g.node("Flatten", x, axis=-1), CHANNELS, "vector"


def squeezed(g: GraphBuilder, op: str, x: str, *axes: int) -> str:
    return str(g.node(op, x, g.ints(*axes)) if g.opset >= 13 else g.node(op, x, axes=list(axes)))


@case("Squeeze", opsets=(7, 11, 13))
def squeeze(g, x, op):
    axes = (2, 3) if g.opset < 11 else (-1, 2)
    return squeezed(g, op, g.node("GlobalAveragePool", x), *axes), CHANNELS, "vector"


@case("Squeeze", opsets=(7, 13))
def squeeze_without_axes(g, x, op):
    return g.node("Squeeze", g.node("GlobalAveragePool", x)), CHANNELS, "vector"


@case("Unsqueeze", opsets=(7, 11, 13))
def unsqueeze(g, x, op):
    return squeezed(g, op, x, 0, 3) and squeezed(g, op, x, 2), CHANNELS, "volume"


@case("Transpose", opsets=(7, 13))
def transpose(g, x, op):
    return g.transpose(x, 0, 2, 3, 1), CHANNELS, "tokens"


@case("Transpose", source="vector")
def transpose_by_default(g, x, op):
    return g.node("Transpose", g.node("Transpose", x))


@case("Expand", opsets=(8, 13))
def expand_a_gate(g, x, op):
    gate = g.conv(g.inputs[0].name, 3, 1)  # (2, 1, 6, 6)
    return g.node("Mul", x, g.node("Expand", gate, g.ints(2, CHANNELS, 6, 6)))


@case("Expand", opsets=(8, 13))
def expand_positions(g, x, op):
    return g.node("Add", x, g.node("Expand", g.node("GlobalAveragePool", x), g.ints(CHANNELS, 6, 1)))


@case("ConstantOfShape", opsets=(9,))
def constant_of_shape(g, x, op):
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.25])
    return g.node("Add", x, g.node(op, g.node("Shape", x), value=value))


@case("DepthToSpace", opsets=(7, 11, 13))
def depth_to_space(g, x, op):
    return g.node(op, x, blocksize=2), 2


@case("DepthToSpace", opsets=(11,))
def depth_to_space_column_row(g, x, op):
    return g.node(op, x, blocksize=2, mode="CRD"), 2


@case("SpaceToDepth", opsets=(7, 13))
def space_to_depth(g, x, op):
    return g.node(op, x, blocksize=2), 4 * CHANNELS


@case("Col2Im", opsets=(18,))
def columns_to_image(g, x, op):
    columns = g.reshape(x, 2, CHANNELS, 36)
    return g.node(op, columns, g.ints(12, 12), g.ints(2, 2), strides=[2, 2]), CHANNELS // 4


@case("DFT", opsets=(17, 20))
def fourier_transform(g, x, op):
    """Real parts and imaginary parts become channels."""
    columns, along = g.reshape(x, 2, CHANNELS, 6, 6, 1), {"axis": 2} if g.opset < 20 else {}
    axis = ("", g.constant(np.array(2, dtype=np.int64))) if g.opset >= 20 else ()
    spectrum = g.transpose(g.node(op, columns, *axis, **along), 0, 1, 4, 2, 3)
    return g.reshape(spectrum, 2, 2 * CHANNELS, 6, 6), 2 * CHANNELS


@case("DFT", source="tokens", pinned="transforms along this axis")
def fourier_transform_of_channels(g, x, op):
    return g.reshape(g.node(op, g.reshape(x, 2, 5, CHANNELS, 1), axis=2, onesided=1), 2, 5, 10), 10


@case("Shape", opsets=(7, 13, 15, 19))
def shape(g, x, op):
    size = floats(g, g.node("Gather", g.node("Shape", x), g.constant(np.array(1, dtype=np.int64))))
    return g.node("Mul", x, g.node("Sqrt", g.node("Div", g.constant(1.0), size)))


@case("Shape", opsets=(15,))
def shape_in_part(g, x, op):
    return g.node("Div", x, floats(g, g.node("Shape", x, start=1, end=2)))


@case("Size", opsets=(7, 13), pinned="counts these channels")
def size(g, x, op):
    return g.node("Div", x, floats(g, g.node("Size", x)))


@case("Constant", opsets=(7, 13))
def constant(g, x, op):
    tensor = onnx.numpy_helper.from_array(g.normal(CHANNELS, 1, 1))
    return g.node("Add", x, g.node("Constant", value=tensor))


@case("Constant", opsets=(13,))
def constant_of_floats(g, x, op):
    return g.node(
        "Add", x, g.reshape(g.node("Constant", value_floats=[0.1 * i for i in range(CHANNELS)]), CHANNELS, 1, 1)
    )


@case("Range", opsets=(11,))
def range_of_positions(g, x, op):
    start, limit, step = (g.constant(v) for v in (0.0, 6.0, 1.0))
    return g.node("Add", x, g.node("Range", start, limit, step))


@case("RandomNormal", "RandomUniform", opsets=(7,))
def noise_of_a_shape(g, x, op):
    return g.node("Add", x, g.node("Mul", g.node(op, shape=[1, 1, 6, 6], seed=1.0), g.constant(0.0)))


@case("EyeLike", opsets=(9,), source="vector", pinned="reads these channels")
def eye_like(g, x, op):
    return g.node("Add", x, g.node("EyeLike", x))


@case("NonZero", opsets=(9, 13), pinned="reads these channels", source="vector")
def non_zero(g, x, op):
    count = g.node("ReduceSum", floats(g, g.node("NonZero", x)), keepdims=0)
    return g.node("Add", x, count)


@case("OneHot", opsets=(9, 11), pinned="reads these channels")
def one_hot(g, x, op):
    index = g.node("ArgMax", x, axis=3, keepdims=1)  # (2, 8, 6, 1)
    hot = g.node("OneHot", index, g.ints(6), g.constant(np.array([0.0, 1.0], dtype=np.float32)))
    return g.node("Squeeze", hot, axes=[3])


# ---------------------------------------------------------------------------------------------- control flow


def value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


@case("If", opsets=(11, 16))
def branches(g, x, op):
    """Channels that both branches capture are contracted inside them."""
    flag = g.node("Greater", g.node("ReduceMax", g.inputs[0].name, keepdims=0), g.constant(0.5))
    made = []
    for activation in ("Relu", "Tanh"):
        inner = g.inside()
        y = inner.node(activation, inner.conv(x, CHANNELS, 4))
        made.append(inner.body([], [value(y, 2, 4, 6, 6)]))
    return g.node("If", flag, then_branch=made[0], else_branch=made[1]), 4


@case("Loop", opsets=(11, 13), pinned="reads these channels")
def loop(g, x, op):
    """What is carried from turn to turn keeps its size; the channels inside a turn are free. The turns decide how many
    there are."""
    inner = g.inside()
    carried = value(inner.name("carried"), 2, CHANNELS, 6, 6)
    turn, go_on = value(inner.name("turn"), kind=TensorProto.INT64), value(inner.name("go_on"), kind=TensorProto.BOOL)
    y = inner.conv(inner.node("Relu", inner.conv(carried.name, CHANNELS, 6)), 6, CHANNELS)
    still = value(inner.node("Less", turn.name, inner.constant(np.array(1, dtype=np.int64))), kind=TensorProto.BOOL)
    body = inner.body([turn, go_on, carried], [still, value(y, 2, CHANNELS, 6, 6)])
    return g.node("Loop", g.constant(np.array(9, dtype=np.int64)), g.constant(np.array(True)), x, body=body)


@case("Scan", opsets=(11,), source="tokens", pinned="reads these channels")
def scan(g, x, op):
    inner = g.inside()
    state, step = value(inner.name("state"), 5, CHANNELS), value(inner.name("step"), 5, CHANNELS)
    y = inner.node("Add", state.name, inner.gemm(inner.gemm(step.name, CHANNELS, 6), 6, CHANNELS))
    again = inner.node("Tanh", y)
    body = inner.body([state, step], [value(y, 5, CHANNELS), value(again, 5, CHANNELS)])
    return g.node("Scan", g.weight(5, CHANNELS), x, outputs=2, num_scan_inputs=1, body=body)[1]
