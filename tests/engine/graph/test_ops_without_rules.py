"""Ops without a rule, in networks that ONNX Runtime runs: what they touch stays, and says why; the rest is cut."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.engine.graph.cuts import assert_correct, cut, run
from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.graph.propagation import RULES

CHANNELS = 8
Place = Callable[[GraphBuilder, str], str]
PLACES: dict[str, tuple[Place, int, str]] = {}
"""Op -> how it is put behind an image (2, 8, 6, 6), the opset, and its domain."""


def place(op: str, opset: int = 18, domain: str = "") -> Callable[[Place], Place]:
    def register(function: Place) -> Place:
        PLACES[op] = (function, opset, domain)
        return function

    return register


def network(op: str) -> onnx.ModelProto:
    """conv 'free' - relu - conv 'touched' - the op - an output."""
    put, opset, domain = PLACES[op]
    g = GraphBuilder(opset, ir_version=11 if opset > 20 else 8)
    x = g.node("Relu", g.conv(g.input((2, 3, 6, 6)), 3, 12, name="free"))
    y = put(g, g.conv(x, 12, CHANNELS, name="touched"))
    return g.model(g.node("Cast", y, to=TensorProto.FLOAT), extra_domains=[domain] if domain else [])


@pytest.mark.parametrize("op", PLACES)
def test_what_it_touches_stays_and_says_why(op: str):
    model = network(op)
    assert any(node.op_type == op for node in model.graph.node)
    run(model)
    done = cut(model)
    free, touched = done.analysis.layers[:2]
    assert free.prunable_channels == 12
    assert touched.prunable_channels == 0
    assert touched.pinned_reason is not None
    assert f"no rule for {op} '" in touched.pinned_reason
    assert_correct(done)


@pytest.mark.parametrize("error", [IndexError, KeyError, TypeError, ValueError])
def test_an_op_that_its_rule_does_not_understand_pins_and_says_why(error: type[Exception], monkeypatch):
    def fail(propagation: object, node: object) -> None:
        raise error("odd")

    monkeypatch.setitem(RULES, "Compress", fail)
    touched = cut(network("Compress")).analysis.layers[1]
    assert touched.prunable_channels == 0
    assert "could not be followed" in (touched.pinned_reason or "")


@place("NonMaxSuppression", 11)
def suppressed(g, x):
    boxes = g.transpose(g.reshape(x, 4, 4, 36), 0, 2, 1)  # half of the channels make the boxes of one sample each
    found = g.node("NonMaxSuppression", boxes, g.weight(4, 1, 36, low=0.0), g.ints(5), g.constant(0.5))
    return g.node("ReduceSum", g.node("Cast", found, to=TensorProto.FLOAT), keepdims=0)


@place("Compress", 11)
def compressed(g, x):
    return g.node("Compress", x, g.constant(np.arange(CHANNELS) % 3 > 0), axis=1)


@place("Unique", 11)
def unique(g, x):
    return g.node("Unique", g.node("Round", x))


@place("Det", 11)
def determinant(g, x):
    return g.node("Det", x)


@place("MaxUnpool", 11)
def unpooled(g, x):
    places = g.constant(np.arange(2 * CHANNELS * 9, dtype=np.int64).reshape(2, CHANNELS, 3, 3) * 4)
    small = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return g.node("MaxUnpool", small, places, kernel_shape=[2, 2], strides=[2, 2])


@place("CenterCropPad")
def cropped(g, x):
    return g.node("CenterCropPad", x, g.ints(4, 4), axes=[2, 3])


@place("SequenceConstruct", 11)
def in_a_sequence(g, x):
    """Which parts are left is decided by an op on lists."""
    both = g.node("SequenceConstruct", x, g.node("Relu", x))
    return g.node("ConcatFromSequence", g.node("SequenceErase", both), axis=1)


@place("SplitToSequence", 11)
def out_of_a_sequence(g, x):
    parts = g.node("SplitToSequence", x, g.constant(np.array(4, dtype=np.int64)), axis=1)
    return g.node("ConcatFromSequence", parts, axis=1)


@place("Optional", 15)
def perhaps(g, x):
    return g.node("OptionalGetElement", g.node("Optional", x))


@place("NegativeLogLikelihoodLoss", 13)
def loss(g, x):
    labels = g.constant(np.arange(72).reshape(2, 6, 6) % CHANNELS)
    return g.node("NegativeLogLikelihoodLoss", x, labels)


@place("Scaler", 17, "ai.onnx.ml")
def scaled_by_classical_learning(g, x):
    pooled = g.reshape(g.node("GlobalAveragePool", x), 2, CHANNELS)
    return g.node("Scaler", pooled, domain="ai.onnx.ml", offset=[0.5] * CHANNELS, scale=[2.0] * CHANNELS)


@place("SampleOp", 17, "com.microsoft")
def sampled(g, x):
    return g.node("SampleOp", x, domain="com.microsoft")


@place("FusedMatMul", 17, "com.microsoft")
def transposed_and_multiplied(g, x):
    """The rank of what is transposed is not declared."""
    w = g.constant(g.normal(36, 5))
    columns = g.transpose(g.reshape(x, 2, CHANNELS, 36), 0, 2, 1)
    return g.node("FusedMatMul", columns, w, domain="com.microsoft", transA=1)


@place("QLinearGlobalAveragePool", 17, "com.microsoft")
def pooled_in_eight_bits(g, x):
    """Its scale is no constant."""
    scale, zero = g.node("Abs", g.constant(0.05)), g.constant(np.array(120, dtype=np.uint8))
    q = g.node("QuantizeLinear", x, scale, zero)
    q = g.node("QLinearGlobalAveragePool", q, scale, zero, scale, zero, domain="com.microsoft", channels_last=0)
    return g.node("DequantizeLinear", q, scale, zero)


@place("SkipLayerNormalization", 17, "com.microsoft")
def skipped_and_normalised(g, x):
    """With its mean as another output."""
    tokens = g.transpose(g.reshape(x, 2, CHANNELS, 36), 0, 2, 1)
    gain, shift = g.weight(CHANNELS, low=0.5), g.weight(CHANNELS)
    y, mean = g.node("SkipLayerNormalization", tokens, tokens, gain, shift, outputs=2, domain="com.microsoft")
    return g.node("Add", y, mean)


def test_a_network_of_unknown_ops_alone_is_left_whole():
    g = GraphBuilder(17)
    x = g.node("SampleOp", g.conv(g.input((1, 3, 4, 4)), 3, 8), domain="com.microsoft")
    done = cut(g.model(x, extra_domains=["com.microsoft"]))
    assert not done.analysis.groups
    assert_correct(done)


def test_a_random_op_is_no_reason_to_fail():
    g = GraphBuilder(17)
    x = g.node("Relu", g.conv(g.input((1, 3, 4, 4)), 3, 8))
    noise = g.node("RandomNormal", shape=[1, 8, 4, 4], seed=1.0)
    model = g.model(g.conv(g.node("Add", x, noise), 8, 4))
    assert_correct(cut(model))


def test_an_unused_constant_and_a_dead_node_stay_where_they_are():
    g = GraphBuilder(17)
    x = g.node("Relu", g.conv(g.input((1, 3, 4, 4)), 3, 8))
    g.weight(8, 8, name="nobody")
    g.node("Softmax", x, axis=1)
    done = cut(g.model(g.conv(x, 8, 4)))
    assert any(t.name == "nobody" for t in done.pruned.graph.initializer)
    run(done.pruned)


def test_what_no_output_needs_is_not_counted_and_stays():
    g = GraphBuilder(17)
    x = g.node("Relu", g.conv(g.input((1, 3, 4, 4)), 3, 8, name="first"))
    g.conv(x, 8, 16, name="nowhere")
    done = cut(g.model(g.conv(x, 8, 4, name="last")))
    layers = {layer.name: layer for layer in done.analysis.layers}
    assert done.analysis.macs == 16 * 9 * (3 * 8 + 8 * 4) == layers["first"].macs + layers["last"].macs
    assert (layers["nowhere"].macs, layers["nowhere"].prunable_channels) == (0, 0)
    assert layers["nowhere"].pinned_reason == "no output of the model needs Conv 'nowhere'"
    assert layers["first"].prunable_channels == 8
    assert_correct(done)


def test_a_layer_that_no_output_needs_goes_with_those_that_it_is_added_to():
    """The last block of a WaveNet adds to a stream that nobody reads any more."""
    g = GraphBuilder(17)
    x = g.node("Relu", g.conv(g.input((1, 3, 4, 4)), 3, 8, name="first"))
    skip = g.node("Relu", g.conv(x, 8, 6, name="skip"))
    g.node("Add", x, g.conv(g.node("Tanh", x), 8, 8, name="nowhere"))
    done = cut(g.model(g.conv(skip, 6, 4)))
    layers = {layer.name: layer for layer in done.analysis.layers}
    assert (layers["first"].prunable_channels, layers["nowhere"].macs) == (8, 0)
    assert_correct(done)


def test_a_model_without_layers_is_returned_as_it_was():
    g = GraphBuilder(17)
    done = cut(g.model(g.node("Softmax", g.input((1, 3, 4, 4)), axis=1)))
    assert not done.analysis.layers
    assert [n.op_type for n in done.pruned.graph.node] == ["Softmax"]
    assert helper.printable_graph(done.pruned.graph)
