"""Networks with what ONNX Runtime's optimiser fuses, with lists of tensors, and with decided conditions and rounds."""

import numpy as np
from onnx import TensorProto, helper

from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.graph.idioms import idiom, reduce_sum, scalar, squeeze

MICROSOFT = "com.microsoft"


def fused(g, x, inputs, outputs, *, plus="", bias=True, **activation):
    """com.microsoft.FusedConv: a convolution, perhaps a sum, and an activation."""
    operands = [x, g.weight(outputs, inputs, 3, 3), g.weight(outputs, low=-0.5) if bias else ""]
    return g.node("FusedConv", *operands, *([plus] if plus else []), domain=MICROSOFT, pads=[1] * 4, **activation)


@idiom(4, 5, 9, 11, 17)
def convolutions_fused_with_sums_and_activations(g):
    x = fused(g, g.input((1, 3, 8, 8)), 3, 8, activation="Relu")
    y = fused(g, x, 8, 6, activation="LeakyRelu", activation_params=[0.2])
    x = fused(g, y, 6, 8, plus=x, bias=False, activation="Clip", activation_params=[0.0, 6.0])
    x = fused(g, x, 8, 8, activation="HardSigmoid", activation_params=[0.2, 0.5])
    return g.conv(x, 8, 4)


@idiom(3, 4, 11, 17)
def matrix_products_fused_with_activations_and_factors(g):
    x = g.node("Flatten", g.node("GlobalAveragePool", g.conv(g.input(("batch", 3, 8, 8)), 3, 8)))
    operands = (g.weight(6, 8), g.weight(6, low=-0.5))
    settings = {"transB": 1, "activation": "LeakyRelu", "activation_alpha": 0.1}
    x = g.node("FusedGemm", x, *operands, domain=MICROSOFT, **settings)
    x = g.node("Relu", g.node("FusedMatMul", x, g.weight(10, 6), domain=MICROSOFT, transB=1, alpha=0.5))
    return g.node("FusedMatMul", x, g.weight(10, 4), domain=MICROSOFT)


@idiom(4, 5, 11, 17, 20)
def all_sorts_of_gelu(g):
    x = g.node("Flatten", g.node("GlobalAveragePool", g.conv(g.input(("batch", 3, 8, 8)), 3, 8)))
    x = g.matmul(g.node("Gelu", x, domain=MICROSOFT), 8, 10)
    x = g.matmul(g.node("BiasGelu", x, g.weight(10, low=-0.5), domain=MICROSOFT), 10, 12)
    x = g.matmul(g.node("FastGelu", x, g.weight(12, low=-0.5), domain=MICROSOFT), 12, 9)
    return g.matmul(g.node("QuickGelu", x, domain=MICROSOFT, alpha=1.5), 9, 4)


@idiom(1, 2, 11, 13, 21)
def pairs_in_the_domain_of_the_runtime(g):
    """Quantised for an opset whose own ops lack the type, or with UseQDQContribOps; axes come with opset 13."""

    def pair(x, scale, zero, **axis):
        scale, zero = g.constant(np.asarray(scale, np.float32)), g.constant(zero)
        steps = g.node("QuantizeLinear", x, scale, zero, domain=MICROSOFT, **axis)
        return g.node("DequantizeLinear", steps, scale, zero, domain=MICROSOFT, **axis)

    x = pair(g.input(("batch", 3, 8, 8)), 0.03, np.array(120, np.uint8))
    weight = g.constant(g.rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8))
    wide = g.opset >= 13
    scale, zero = (np.linspace(0.002, 0.004, 8), np.zeros(8, np.int8)) if wide else (0.003, np.array(0, np.int8))
    operands = (g.constant(np.asarray(scale, np.float32)), g.constant(zero))
    weight = g.node("DequantizeLinear", weight, *operands, domain=MICROSOFT, **({"axis": 0} if wide else {}))
    x = g.node("Relu", g.node("Conv", x, weight, pads=[1] * 4))
    x = pair(x, 0.0005 if g.opset >= 21 else 0.047, np.array(0, np.int16 if g.opset >= 21 else np.int8))
    if wide:
        x = pair(x, np.linspace(0.03, 0.06, 8), np.zeros(8, np.int8), axis=1)
    return g.conv(x, 8, 4)


@idiom(4, 5, 11, 13, 17)
def lists_of_parts(g):
    """torch.split by one size and by several, unbind, cat and stack on Python lists, as TorchScript writes them."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 12))
    halves = g.node("SplitToSequence", x, scalar(g, 6), axis=1)
    a, b = (g.node("SequenceAt", halves, place) for place in (scalar(g, 0), g.ints(1)))
    parts = g.node("SplitToSequence", g.conv(a, 6, 8), g.ints(3, 5), axis=1)
    c, d = (g.node("SequenceAt", parts, scalar(g, i)) for i in (0, -1))
    joined = g.node("ConcatFromSequence", g.node("SequenceConstruct", c, d, g.conv(b, 6, 4)), axis=1, new_axis=0)
    doubled = g.node("SequenceConstruct", joined, g.node("Relu", joined))
    stacked = g.node("ConcatFromSequence", doubled, axis=1, new_axis=1)
    first = g.node("SequenceAt", g.node("SplitToSequence", stacked, axis=1, keepdims=0), scalar(g, 1))
    again = g.node("SequenceAt", g.node("SequenceConstruct", first, joined), scalar(g, 0))
    return g.conv(g.conv(again, 12, 7), 7, 4)


@idiom(3, 4, 11, 17)
def a_condition_that_is_decided(g):
    """An option of the module that was a tensor when it was exported."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 8))
    branches = []
    for outputs in (6, 5):
        body: GraphBuilder = g.inside()
        result = body.node("Relu", body.conv(x, 8, outputs))
        branches.append(body.body([], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)]))
    chosen = g.node("If", g.constant(np.array(True)), then_branch=branches[0], else_branch=branches[1])
    return g.conv(g.conv(chosen, 6, 7), 7, 4)


@idiom(2, 3, 11, 17)
def a_squeeze_that_asks_for_the_size(g):
    """TorchScript's squeeze(2) where the exporter does not know that a pool leaves one row; the standard does."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, "width")), 3, 8))
    x = g.node("MaxPool", g.node("Relu", g.conv(x, 8, 6)), kernel_shape=[8, 1])
    one = g.node("Equal", g.node("Gather", g.node("Shape", x), g.ints(2)), g.ints(1))
    bodies: list[GraphBuilder] = [g.inside() for _ in range(2)]
    results = [squeeze(bodies[0], x, 2), bodies[1].node("Identity", x)]
    branches = [
        body.body([], [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)])
        for body, result in zip(bodies, results, strict=True)
    ]
    line = g.node("If", one, then_branch=branches[0], else_branch=branches[1])
    return g.conv(line, 6, 4, rank=1)


@idiom(5, 6, 11, 17)
def rounds_that_are_decided(g):
    """for frame in range(3): h = torch.tanh(conv(h)) + x * frame; and what each round leaves is stacked, too."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 8))
    inner = g.inside()
    frame, going, h = (inner.name(stem) for stem in ("frame", "going", "h"))
    late = inner.node("Mul", x, inner.node("Cast", frame, to=TensorProto.FLOAT))
    new = inner.node("Add", inner.node("Tanh", inner.conv(h, 8, 8)), late)
    still = inner.node("Cast", inner.constant(np.array(1)), to=TensorProto.BOOL)
    kinds = {frame: TensorProto.INT64, going: TensorProto.BOOL, still: TensorProto.BOOL}

    def declared(*names):
        types = [(name, kinds.get(name, TensorProto.FLOAT), [] if name in kinds else None) for name in names]
        return [helper.make_tensor_value_info(*each) for each in types]

    body = inner.body(declared(frame, going, h), declared(still, new, inner.node("Relu", new)))
    last, seen = g.node("Loop", scalar(g, 3), "", x, outputs=2, body=body)
    return g.conv(g.conv(g.node("Add", last, reduce_sum(g, seen, 0, keepdims=0)), 8, 7), 7, 4)


@idiom(3, 4, 11, 17)
def lists_that_grow(g):
    """frames = []; frames.append(a); ...; torch.cat(frames, 1), as TorchScript writes it."""
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 8))
    frames = g.node("SequenceEmpty")
    for frame in (x, g.conv(x, 8, 6)):
        frames = g.node("SequenceInsert", frames, frame)
    last = g.node("SequenceAt", frames, scalar(g, -1))
    joined = g.node("Concat", g.node("ConcatFromSequence", frames, axis=1), last, axis=1)
    return g.conv(g.conv(joined, 20, 7), 7, 4)


@idiom(2, 3, 12, 17)
def an_ellipsis(g):
    x = g.node("Relu", g.conv(g.input(("batch", 3, 8, 8)), 3, 8))
    x = g.node("Relu", g.node("Einsum", g.transpose(x, 0, 2, 3, 1), g.weight(8, 10), equation="...c,cd->...d"))
    return g.node("Einsum", g.weight(4, 10), x, equation="dc, ...c -> ...d")


@idiom(5, 8, 13, 17)
def products_of_transposed_activations(g):
    """A non-local block as ONNX Runtime saves it: the transposes are attributes of the products."""
    x = g.node("Relu", g.conv(g.input((1, 3, 6, 6)), 3, 12))
    theta, phi, values = (g.reshape(g.conv(x, 12, 8, kernel=1), 1, 8, 36) for _ in range(3))
    for name in (theta, phi, values):
        g.declare(name, (1, 8, 36))
    weights = g.node("FusedMatMul", theta, phi, domain=MICROSOFT, transA=1, alpha=0.35)
    weights = g.node("Softmax", weights, axis=-1)
    g.declare(weights, (1, 36, 36))
    y = g.reshape(g.node("FusedMatMul", values, weights, domain=MICROSOFT, transB=1), 1, 8, 6, 6)
    x = g.node("Add", x, g.conv(y, 8, 12, kernel=1))
    return g.conv(x, 12, 4)


@idiom(4, 5, 17, inexact=True)
def norms_fused_with_the_sum_in_front(g):
    """SkipLayerNormalization with and without a bias, and with its sum as another output."""
    x = g.linear(g.input((2, 5, 6)), 6, 12)
    y = g.linear(g.node("Relu", g.linear(x, 12, 10)), 10, 12)
    affine = [(g.weight(12, low=0.5), g.weight(12)) for _ in range(2)]
    x, _, _, total = g.node("SkipLayerNormalization", y, x, *affine[0], g.weight(12), outputs=4, domain=MICROSOFT)
    x = g.node("SkipLayerNormalization", g.linear(x, 12, 12), total, *affine[1], domain=MICROSOFT, epsilon=1e-6)
    return g.linear(x, 12, 4)
