"""Graphs that make much of the last bit: what rounding accounts for is excused, and nothing else."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.engine.graph.cuts import half, run
from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.graph.idioms_quantised import SEVEN_BITS
from worker.engine.graph import analyze, sample_inputs
from worker.engine.graph.precision import settle
from worker.engine.graph.rounding import judged, measured_rounding
from worker.engine.proof import prove
from worker.engine.surgery import prune
from worker.engine.torch_form import build, parity
from worker.runner.torch_model import TOLERANCE, checked_form


def badly_scaled(seed: int, factor: float = 3e3) -> onnx.ModelProto:
    """Large numbers, of which the digits behind the point are what counts."""
    g = GraphBuilder(17, seed=seed)
    x = g.node("Relu", g.conv(g.input((1, 3, 16, 16)), 3, 256))
    x = g.conv(g.node("Relu", g.conv(x, 256, 64)), 64, 4, kernel=1)
    return g.model(g.node("Sin", g.node("Mul", x, g.constant(np.float32(factor)))))


@pytest.mark.parametrize("seed", range(3))
def test_what_rounding_accounts_for_is_excused_in_proofs(seed: int):
    analysis = analyze(badly_scaled(seed))
    plan = half(analysis, seed)
    proof = prove(analysis, plan, prune(analysis, plan))
    assert proof.passed
    assert proof.max_relative_error < proof.tolerance < proof.excused < 0.01


def test_a_mistake_is_not():
    analysis = analyze(badly_scaled(0))
    plan = half(analysis, 0)
    wrong = prune(analysis, plan)
    factor = next(t for t in wrong.graph.initializer if numpy_helper.to_array(t).max() > 1e3)
    factor.CopyFrom(numpy_helper.from_array(np.float32(2e3), factor.name))
    proof = prove(analysis, plan, wrong)
    assert not proof.passed
    assert proof.max_relative_error > 0.01


def test_what_rounding_accounts_for_is_excused_between_torch_and_onnxruntime():
    model = badly_scaled(0)
    assert parity(model, build(model), sample_inputs(model, 0)) > TOLERANCE
    _, found = checked_form(model, 0)
    assert found.max_relative_error < TOLERANCE < found.excused


def test_a_graph_of_good_scale_has_rounding_of_a_few_last_bits():
    inputs = {"x": np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32), "n": np.arange(3)}
    weights = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    found = measured_rounding(lambda given: {"y": given["x"] @ weights, "n": given["n"]}, inputs, {})
    assert set(found) == {"y"}
    assert 0 < found["y"] < 1e-5


def test_rounding_excuses_a_hundredth_at_most_but_behind_sigmoids():
    def run(given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.sin(1e9 * given["x"]) for name in ("y", "saturated")}

    found = measured_rounding(run, {"x": np.linspace(0.5, 1, 9, dtype=np.float32)}, {"saturated": ()})
    assert found["y"] == 0.01
    assert found["saturated"] > 1


def test_only_errors_beyond_the_tolerance_are_excused_and_told():
    errors = {"small": 1e-6, "excused": 5e-3, "wrong": 2e-2}
    found = judged(errors, {"small": 1.0, "excused": 6e-3, "wrong": 1e-2}, 1e-4)
    assert found == (2e-2, 5e-3)


def dynamic(seed: int) -> onnx.ModelProto:
    """Float layers in front of those that quantize_dynamic of ONNX Runtime has made integer ones."""
    g = GraphBuilder(17, seed=seed)

    def dense(x: str, inputs: int, outputs: int) -> str:
        levels, scale, zero = g.node("DynamicQuantizeLinear", x, outputs=3)
        weight, zeros = (g.constant(g.rng.integers(-99, 99, size).astype(np.int8)) for size in ((inputs, outputs), ()))
        sums = g.node("Cast", g.node("MatMulInteger", levels, weight, zero, zeros), to=TensorProto.FLOAT)
        return str(g.node("Mul", sums, g.node("Mul", scale, g.constant(np.float32(0.01)))))

    x = g.node("Relu", g.conv(g.input((1, 3, 16, 16)), 3, 64))
    x = g.node("Relu", g.conv(x, 64, 64))
    x = g.node("Tanh", dense(g.transpose(g.reshape(x, 1, 64, 256), 0, 2, 1), 64, 128))
    return g.model(dense(g.node("Relu", dense(x, 128, 96)), 96, 10))


@pytest.mark.parametrize("seed", range(4))
def test_ranges_taken_from_each_input_make_no_levels_of_last_bits(seed: int):
    model = onnx.shape_inference.infer_shapes(dynamic(seed))
    analysis = analyze(model)
    plan = half(analysis, seed)
    pruned = prune(analysis, plan)
    proof = prove(analysis, plan, pruned)
    assert proof.passed
    assert max(proof.max_relative_error, proof.excused) < 1e-5
    for each in (model, pruned):
        _, found = checked_form(each, 0)
        assert max(found.max_relative_error, found.excused) < 1e-5


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize(
    ("op", "shape", "zeros"),
    [("ConvInteger", (8, 3, 3, 3), 1), ("MatMulInteger", (8, 6), 6), ("MatMulInteger", (8, 6), None)],
)
def test_without_levels_a_layer_computes_nearly_the_same(op, shape, zeros, dtype):
    """With one zero point, one for each column, or none."""
    g = GraphBuilder(17)
    levels, scale, zero = g.node("DynamicQuantizeLinear", g.node("Sin", g.input((2, 3, 8, 8))), outputs=3)
    stored = [g.constant(g.rng.integers(0, SEVEN_BITS, size).astype(dtype)) for size in (shape, zeros) if size]
    sums = g.node(op, levels, stored[0], zero, *stored[1:])
    model = g.model(g.node("Mul", g.node("Cast", sums, to=TensorProto.FLOAT), scale))
    inputs = sample_inputs(model, 0)
    (due,) = run(model, inputs)
    settle(model)
    assert not any("Quantize" in node.op_type or "Integer" in node.op_type for node in model.graph.node)
    (found,) = run(model, inputs)
    assert 0 < np.abs(found - due).max() < 0.01 * np.abs(due).max()


@pytest.mark.parametrize("reader", ["DequantizeLinear", "output"])
def test_levels_that_something_else_reads_stay(reader: str):
    model = dynamic(0)
    made = next(node for node in model.graph.node if node.op_type == "DynamicQuantizeLinear")
    if reader == "output":
        model.graph.output.append(helper.make_tensor_value_info(made.output[0], TensorProto.UINT8, None))
    else:
        model.graph.node.append(helper.make_node(reader, list(made.output), ["seen"]))
        model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    settle(model)
    assert [node.op_type for node in model.graph.node].count("DynamicQuantizeLinear") == 1
    run(model)
