"""Detectors without NonMaxSuppression order their candidates by TopK: scores that are alike but for rounding change
places between two graphs that are equal, and the boxes with them."""

import operator
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.engine.graph.cuts import Cut, half
from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.graph import analyze, sample_inputs
from worker.engine.proof import Proof, prove
from worker.engine.surgery import prune
from worker.engine.torch_form import build, parity
from worker.engine.torch_form.rules import elementwise
from worker.runner.diagnosis import BrokenPromise
from worker.runner.torch_model import TOLERANCE, checked_form

CANDIDATES = 300


def detector(seed: int, *, classes: bool = False) -> onnx.ModelProto:
    """The boxes of the best candidates and their scores, which are all but one: sigmoids are flat there."""
    g = GraphBuilder(17, seed=seed)
    x = g.node("Relu", g.conv(g.input((1, 3, 32, 32)), 3, 16))
    boxes = g.conv(g.node("Relu", g.conv(x, 16, 12)), 12, 4, kernel=1)
    scores = g.conv(g.node("Relu", g.conv(x, 16, 12)), 12, 10, kernel=1)
    scores = g.node("Sigmoid", g.node("Add", scores, g.constant(np.float32(8))))
    boxes, scores = (g.transpose(g.reshape(y, 1, n, -1), 0, 2, 1) for y, n in ((boxes, 4), (scores, 10)))
    best = g.node("ReduceMax", scores, axes=[2], keepdims=0)
    values, indices = g.node("TopK", best, g.ints(CANDIDATES), outputs=2, axis=1)
    chosen = g.node("Tile", g.node("Unsqueeze", indices, g.ints(-1)), g.ints(1, 1, 4))
    outputs = [g.node("GatherElements", boxes, chosen, axis=1), values]
    if classes:
        outputs.append(g.node("ArgMax", scores, axis=2, keepdims=0))
    return g.model(*outputs, kinds=[TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64][: len(outputs)])


def keypoints(seed: int) -> onnx.ModelProto:
    """The places whose score is above the mean and the best around, and what is there; scores are small differences of
    large sums."""
    g = GraphBuilder(17, seed=seed)
    x = g.node("Relu", g.conv(g.input((1, 3, 32, 32)), 3, 16))
    x = g.node("Add", g.node("Relu", g.conv(x, 16, 48)), g.constant(np.float32(1000)))
    scores = g.conv(x, 48, 1)
    best = g.node("MaxPool", scores, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    high = g.node("Greater", scores, g.node("ReduceMean", scores, keepdims=1))
    peaks = g.node("And", g.node("Equal", scores, best), high)
    found = g.transpose(g.node("NonZero", peaks), 1, 0)
    return g.model(found, g.node("GatherND", scores, found), kinds=[TensorProto.INT64, TensorProto.FLOAT])


def halved(seed: int, make: Callable[[int], onnx.ModelProto] = detector) -> Cut:
    analysis = analyze(make(seed))
    plan = half(analysis, seed)
    return Cut(analysis, plan, prune(analysis, plan))


def proof_of(done: Cut) -> Proof:
    return prove(done.analysis, done.plan, done.pruned)


def test_an_order_that_rounding_decides_is_no_error_of_the_surgery():
    proofs = [proof_of(halved(seed)) for seed in range(6)]
    assert all(proof.passed for proof in proofs)
    told = [proof.given_choices for proof in proofs if proof.given_choices]
    assert told
    assert all(len(nodes) == 1 and nodes[0].startswith("TopK") for nodes in told)


@pytest.mark.parametrize("mistake", ["a weight", "another order", "another axis of boxes"])
def test_a_mistake_behind_or_before_a_choice_is_still_seen(mistake: str):
    done = halved(1)
    nodes = {node.op_type: node for node in done.pruned.graph.node}
    if mistake == "a weight":
        boxes = next(t for t in done.pruned.graph.initializer if list(t.dims)[:1] == [4] and len(t.dims) == 4)
        boxes.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(boxes)[::-1].copy(), boxes.name))
    elif mistake == "another order":
        nodes["TopK"].attribute.append(helper.make_attribute("largest", 0))
    else:
        flipped = helper.make_node("Sub", [nodes["Tile"].output[0], "one"], ["moved"])
        done.pruned.graph.initializer.append(numpy_helper.from_array(np.array(1), "one"))
        nodes["GatherElements"].input[1] = "moved"
        done.pruned.graph.node.insert(len(done.pruned.graph.node) - 1, flipped)
    assert not proof_of(done).passed


def test_how_many_places_pass_a_threshold_may_be_a_matter_of_rounding():
    proofs = [proof_of(halved(seed, keypoints)) for seed in range(6)]
    assert all(proof.passed for proof in proofs)
    told = {name.split("_")[0] for proof in proofs for name in proof.given_choices}
    assert told == {"Equal", "Greater"}


@pytest.mark.parametrize("mistake", ["a weight", "another comparison", "other neighbours"])
def test_a_mistake_behind_or_before_a_threshold_is_still_seen(mistake: str):
    done = halved(1, keypoints)
    nodes = {node.op_type: node for node in done.pruned.graph.node}
    if mistake == "a weight":
        last = next(t for t in done.pruned.graph.initializer if list(t.dims)[:1] == [1] and len(t.dims) == 4)
        last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last) * np.float32(0.99), last.name))
    elif mistake == "another comparison":
        nodes["Greater"].op_type = "Less"
    else:
        del nodes["MaxPool"].attribute[:]
        sides = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}
        nodes["MaxPool"].attribute.extend(helper.make_attribute(name, value) for name, value in sides.items())
    assert not proof_of(done).passed


def test_torch_may_find_another_number_of_places():
    models = [keypoints(seed) for seed in range(6)]
    apart = [m for m in models if parity(m, build(m), sample_inputs(m, 0)) > TOLERANCE]
    assert apart
    for model in apart:
        _, found = checked_form(model, 0)
        assert found.max_relative_error < TOLERANCE
        assert {name.split("_")[0] for name in found.given_choices} == {"Equal", "Greater"}


def test_a_threshold_that_torch_sees_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(elementwise._BINARY, "Greater", operator.lt)
    with pytest.raises(BrokenPromise, match="differs from ONNX Runtime by inf"):
        checked_form(keypoints(0), 0)


def test_torch_may_order_near_ties_in_another_way():
    models = [detector(seed, classes=True) for seed in range(6)]
    apart = [m for m in models if parity(m, build(m), sample_inputs(m, 0)) > TOLERANCE]
    assert apart
    for model in apart:
        _, found = checked_form(model, 0)
        assert found.max_relative_error < TOLERANCE
        assert {name.split("_")[0] for name in found.given_choices} == {"TopK", "ArgMax"}
