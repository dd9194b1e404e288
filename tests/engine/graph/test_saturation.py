"""Detectors that see nothing answer with probabilities near zero, where a sigmoid in float32 has no digits left."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.engine.graph.cuts import half
from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.graph import analyze, sample_inputs
from worker.engine.graph.onnx_graph import OnnxGraph
from worker.engine.graph.saturation import saturated
from worker.engine.proof import prove
from worker.engine.surgery import prune
from worker.engine.torch_form import build, parity, parity_but_for_rounding
from worker.runner.torch_model import TOLERANCE, checked_form


def detector(seed: int, bias: float = -15.0) -> onnx.ModelProto:
    """A probability per place, as text and face detectors end: all but zero."""
    g = GraphBuilder(17, seed=seed)
    x = g.node("Relu", g.conv(g.input((1, 3, 32, 32)), 3, 16))
    x = g.conv(g.node("Relu", g.conv(x, 16, 12)), 12, 1, kernel=1)
    probability = g.node("Sigmoid", g.node("Add", x, g.constant(np.float32(bias))))
    return g.model(g.reshape(probability, 1, -1))


@pytest.mark.parametrize("seed", range(3))
def test_the_rounding_of_a_sigmoid_near_zero_is_no_error_of_the_surgery(seed: int):
    analysis = analyze(detector(seed))
    plan = half(analysis, seed)
    assert prove(analysis, plan, prune(analysis, plan)).passed


@pytest.mark.parametrize("seed", range(3))
def test_a_mistake_before_a_sigmoid_near_zero_is_still_seen(seed: int):
    analysis = analyze(detector(seed))
    plan = half(analysis, seed)
    wrong = prune(analysis, plan)
    last = next(t for t in wrong.graph.initializer if len(t.dims) == 4 and t.dims[0] == 1)
    last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last)[:, ::-1].copy(), last.name))
    assert not prove(analysis, plan, wrong).passed


def test_a_wrong_bias_behind_the_last_layer_is_seen_where_the_output_has_no_digits_left():
    analysis = analyze(detector(0, bias=-40))
    plan = half(analysis, 0)
    wrong = prune(analysis, plan)
    bias = next(t for t in wrong.graph.initializer if numpy_helper.to_array(t).size == 1 and len(t.dims) == 0)
    bias.CopyFrom(numpy_helper.from_array(np.float32(-41), bias.name))
    assert not prove(analysis, plan, wrong).passed


def test_a_wrong_bias_is_seen_where_saturated_scores_only_choose():
    """The scores are no output, a layer comes after them, and what they choose is given to both graphs."""
    g = GraphBuilder(17, seed=0)
    x = g.node("Relu", g.conv(g.input((1, 3, 16, 16)), 3, 16))
    boxes = g.reshape(g.conv(x, 16, 4, kernel=1), 1, 4, -1)
    logits = g.node("Add", g.conv(x, 16, 1, kernel=1), g.constant(np.float32(-40)))
    _, best = g.node("TopK", g.reshape(g.node("Sigmoid", logits), 1, 1, -1), g.ints(9), outputs=2)
    chosen = g.node("GatherElements", boxes, g.node("Tile", best, g.ints(1, 4, 1)), axis=2)
    analysis = analyze(g.model(g.matmul(chosen, 9, 5)))
    plan = half(analysis, 0)
    right, wrong = prune(analysis, plan), prune(analysis, plan)
    bias = next(t for t in wrong.graph.initializer if numpy_helper.to_array(t).size == 1 and len(t.dims) == 0)
    bias.CopyFrom(numpy_helper.from_array(np.float32(-41), bias.name))
    assert prove(analysis, plan, right).passed
    assert not prove(analysis, plan, wrong).passed


def test_torch_and_onnxruntime_agree_but_for_the_rounding_of_a_sigmoid():
    models = [detector(seed) for seed in range(3)]
    assert any(parity(m, build(m), sample_inputs(m, 0)) > TOLERANCE for m in models)
    for model in models:
        assert checked_form(model, 0)[1].max_relative_error < TOLERANCE


def test_what_went_into_a_sigmoid_is_compared():
    """What comes out is excused: what is left of an error is that of the sigmoid's input."""
    model = detector(0)
    found, _ = parity_but_for_rounding(model, sample_inputs(model, 0), TOLERANCE)
    assert 0 < found.error < TOLERANCE < found.excused


def test_behind_a_layer_results_have_a_size_of_their_own():
    g = GraphBuilder(17)
    gate = g.node("Sigmoid", g.conv(g.input((1, 3, 8, 8)), 3, 3))
    behind = g.node("Mul", gate, g.constant(np.float32(2)))
    layer = g.conv(behind, 3, 4)
    model = g.model(g.node("Relu", layer))
    found = saturated(OnnxGraph(model))
    assert set(found) == {gate, behind}
    assert found[behind] == found[gate] == {model.graph.node[0].output[0]}
