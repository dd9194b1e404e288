"""Detectors without NonMaxSuppression order their candidates by TopK: scores that are alike but for rounding change
places between two graphs that are equal, and the boxes with them."""

import numpy as np
import onnx
import pytest
from cuts import Cut, half
from graph_builder import GraphBuilder
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import analyze, sample_inputs
from worker.engine.proof import Proof, prove
from worker.engine.surgery import prune
from worker.engine.torch_form import build, parity
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


def halved(seed: int) -> Cut:
    analysis = analyze(detector(seed))
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


def test_torch_may_order_near_ties_in_another_way():
    models = [detector(seed, classes=True) for seed in range(6)]
    apart = [m for m in models if parity(m, build(m), sample_inputs(m, 0)) > TOLERANCE]
    assert apart
    for model in apart:
        _, found = checked_form(model, 0)
        assert found.max_relative_error < TOLERANCE
        assert {name.split("_")[0] for name in found.given_choices} == {"TopK", "ArgMax"}
