"""Groups whose cut cannot be proved are found, and the rest is pruned without them."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from worker.engine.graph import Analysis, analyze
from worker.engine.graph.propagation import RULES, Node, Propagation
from worker.engine.proof import prove
from worker.engine.surgery import Plan, prune
from worker.engine.verification import unprovable_units


def three_convolutions() -> onnx.ModelProto:
    """x -> conv (8) -> Neg -> conv (8) -> Relu -> conv (4): two groups of eight channels."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (8, 3, 3, 3)), ("w2", (8, 8, 3, 3)), ("w3", (4, 8, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first"),
        helper.make_node("Neg", ["a"], ["b"], "negation"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "second"),
        helper.make_node("Relu", ["c"], ["d"], "activation"),
        helper.make_node("Conv", ["d", "w3"], ["y"], "third"),
    ]
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "three", [image], [result], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def half(analysis: Analysis) -> Plan:
    return Plan({g.id: np.arange(len(g)) < len(g) // 2 for g in analysis.groups})


def backwards(p: Propagation, node: Node) -> None:
    """A wrong rule: channels come out in reverse order."""
    dims = p.dims(node, 0)
    p.set_output(node, [dims[0], None if dims[1] is None else dims[1][::-1].copy(), *dims[2:]])


def test_a_sound_surgery_has_no_unprovable_units() -> None:
    analysis = analyze(three_convolutions())
    assert unprovable_units(analysis, half(analysis)) == ()


def test_the_group_behind_a_wrong_rule_is_found_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "Neg", backwards)
    analysis = analyze(three_convolutions())
    plan = half(analysis)
    assert not prove(analysis, plan, prune(analysis, plan)).passed

    units = unprovable_units(analysis, plan)
    guilty = next(g for g in analysis.groups if any(s.weight == "w1" for s in g.sources))
    assert units == tuple(guilty.units.tolist())

    rest = analysis.without(units, "not proved")
    assert [s.weight for g in rest.groups for s in g.sources] == ["w2"]
    assert next(layer for layer in rest.layers if layer.name == "first").pinned_reason == "not proved"
    pruned = prune(rest, half(rest))
    assert prove(rest, half(rest), pruned).passed
    assert rest.costs.macs(half(rest).counts(rest)) < rest.macs


def test_an_analysis_stays_as_it_is_when_another_is_made_without_some_units() -> None:
    analysis = analyze(three_convolutions())
    first, second = (tuple(group.units.tolist()) for group in analysis.groups)
    assert [s.weight for g in analysis.without(first, "one").groups for s in g.sources] == ["w2"]
    assert [s.weight for g in analysis.without(second, "other").groups for s in g.sources] == ["w1"]
