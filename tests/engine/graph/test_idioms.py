"""Half of every free channel of networks in their tools' idioms goes, exactly.

Each network states how many of its layers are free, so that a rule that begins to pin what it used to cut is seen.
"""

import numpy as np
import onnx
import pytest

from tests.engine.graph import idioms_fused, idioms_paddle, idioms_quantised, idioms_tensorflow, idioms_torch
from tests.engine.graph.cuts import assert_correct, cut, run
from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.graph.idioms import IDIOMS, Idiom
from tests.engine.graph.idioms_quantised import SEVEN_BITS, levels, quantised
from worker.engine.graph import analyze, sample_inputs
from worker.engine.graph.standard_ops import with_standard_ops
from worker.engine.torch_form import build, parity

TOOLS = (idioms_fused, idioms_paddle, idioms_quantised, idioms_tensorflow, idioms_torch)


@pytest.mark.parametrize("case", IDIOMS, ids=str)
def test_half_of_what_is_free_goes(case: Idiom):
    done = cut(case.model(), allow_inexact=case.inexact)
    layers = done.analysis.layers
    free = [layer.name for layer in layers if layer.prunable_channels]
    assert len(layers) == case.layers
    assert len(free) == case.free, {layer.name: layer.pinned_reason for layer in layers}
    assert all(layer.pinned_reason for layer in layers if layer.prunable_channels < layer.channels)
    proof = assert_correct(done)
    assert bool(proof.waived_nodes) == case.inexact


FUSED = [case for case in IDIOMS if case.draw.__module__ == idioms_fused.__name__]


@pytest.mark.parametrize("case", FUSED, ids=str)
def test_what_is_written_in_standard_ops_computes_the_same_and_can_be_trained(case: Idiom):
    model = case.model()
    standard = with_standard_ops(model)
    assert {node.domain for node in standard.graph.node} == {""}
    assert not any("Sequence" in node.op_type or node.op_type in ("If", "Loop") for node in standard.graph.node)
    for due, found in zip(run(model), run(standard), strict=True):
        np.testing.assert_allclose(found, due, rtol=1e-5, atol=1e-5)
    form = build(model)
    assert parity(model, form, sample_inputs(model, 0)) < 1e-4
    assert len(form.parameters) >= len(analyze(model).layers)


MADE_OF_BYTES = {
    "QLinearAdd": lambda x, y, made: ([*x, *y, *made], {}),
    "QLinearAveragePool": lambda x, y, made: ([*x, *made], {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]}),
    "QLinearConcat": lambda x, y, made: ([*made, *x, *y], {"axis": 1}),
    "QLinearGlobalAveragePool": lambda x, y, made: ([*x, *made], {}),
    "QLinearLeakyRelu": lambda x, y, made: ([*x, *made], {"alpha": 0.1}),
    "QLinearMul": lambda x, y, made: ([*x, *y, *made], {}),
    "QLinearSigmoid": lambda x, y, made: ([*x, *made], {}),
    "QLinearSoftmax": lambda x, y, made: ([*x, *made], {"axis": 1, "opset": 13}),
}


@pytest.mark.parametrize("op", MADE_OF_BYTES)
def test_a_quantised_op_computes_the_same_between_pairs(op: str):
    """To a level, half of which may be rounded either way."""
    g = GraphBuilder(13)
    x, y = (quantised(g, scale) for scale in (0.02, 0.03))
    made = (g.constant(0.005), g.constant(np.array(9, dtype=np.uint8)))
    given = g.input((2, 4, 5, 5))
    first, second = (g.node("QuantizeLinear", each, *q) for each, q in ((given, x), (g.node("Sin", given), y)))
    operands, attributes = MADE_OF_BYTES[op]((first, *x), (second, *y), made)
    result = g.node(op, *operands, domain="com.microsoft", **attributes)
    assert_same_between_pairs(
        g.model(g.node("DequantizeLinear", result, *made), extra_domains=["com.microsoft"]), 0.005
    )


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("to_bytes", [False, True])
def test_a_quantised_gemm_computes_the_same_between_pairs(transposed: int, per_column: bool, to_bytes: bool):
    g = GraphBuilder(13)
    x, made = quantised(g, 0.02), (g.constant(0.05), g.constant(np.array(120, dtype=np.uint8)))
    rows = g.node("QuantizeLinear", g.input((3, 8)), *x)
    columns = 5 if per_column else 1
    scales = g.constant(g.rng.uniform(0.002, 0.02, columns).astype(np.float32))
    weight = (
        levels(g, *((5, 8) if transposed else (8, 5)), most=SEVEN_BITS),
        scales,
        g.constant(np.zeros(columns, np.int8)),
    )
    values = g.constant(g.rng.integers(-9000, 9000, 5).astype(np.int32))
    operands = [rows, *x, *weight, values, *(made if to_bytes else ())]
    result = g.node("QGemm", *operands, domain="com.microsoft", transB=transposed, alpha=0.5)
    output = g.node("DequantizeLinear", result, *made) if to_bytes else result
    assert_same_between_pairs(g.model(output, extra_domains=["com.microsoft"]), 0.05 if to_bytes else 1e-5)


def assert_same_between_pairs(model: onnx.ModelProto, level: float) -> None:
    standard = with_standard_ops(model)
    assert {node.domain for node in standard.graph.node} == {""}
    (due,), (found,) = run(model), run(standard)
    assert len(np.unique(due)) > 4
    np.testing.assert_allclose(found, due, rtol=1e-5, atol=1.01 * level)
    assert np.mean(np.abs(found - due)) < 0.1 * level


@pytest.mark.parametrize("setting", ["channels_last", "opset", "scale", "zero"])
def test_a_quantised_op_without_a_standard_form_stays(setting: str):
    g = GraphBuilder(13)
    x = quantised(g, 0.02)
    rows = g.node("QuantizeLinear", g.input((2, 4, 5, 5)), *x)
    if setting == "channels_last":
        result = g.node("QLinearGlobalAveragePool", rows, *x, *x, domain="com.microsoft", channels_last=1)
    elif setting == "opset":
        result = g.node("QLinearSoftmax", rows, *x, *x, domain="com.microsoft", axis=1, opset=11)
    elif setting == "scale":
        computed = g.node("Abs", g.input(()))
        result = g.node("QLinearSigmoid", rows, *x, computed, x[1], domain="com.microsoft")
    else:
        result = g.node("QLinearSigmoid", rows, *x, x[0], domain="com.microsoft")
    model = g.model(g.node("DequantizeLinear", result, *x), extra_domains=["com.microsoft"])
    assert with_standard_ops(model) is model


@pytest.mark.parametrize(("axis", "stays"), [(2, False), (3, True)])
def test_a_condition_on_a_size_is_decided_where_it_is_the_same_for_all_inputs(axis: int, stays: bool):
    g = GraphBuilder(17)
    x = g.conv(g.input(("batch", 3, 1, "width")), 3, 8)
    one = g.node("Equal", g.node("Gather", g.node("Shape", x), g.ints(axis)), g.ints(1))
    inner = [g.inside(), g.inside()]
    branches = [
        body.body([], [onnx.helper.make_tensor_value_info(body.node(op, x), onnx.TensorProto.FLOAT, None)])
        for body, op in zip(inner, ("Tanh", "Relu"), strict=True)
    ]
    model = g.model(g.conv(g.node("If", one, then_branch=branches[0], else_branch=branches[1]), 8, 4))
    standard = with_standard_ops(model)
    assert ("If" in {node.op_type for node in standard.graph.node}) == stays
    assert stays or "Relu" not in {node.op_type for node in standard.graph.node}
    (due,), (found,) = run(model), run(standard)
    np.testing.assert_array_equal(found, due)


QUANTISED = [case for case in IDIOMS if case.draw.__module__ == idioms_quantised.__name__]


@pytest.mark.parametrize("case", QUANTISED, ids=str)
def test_a_quantised_network_whose_tensors_are_all_declared_is_cut_as_well(case: Idiom):
    """As onnxsim, ModelOpt and torch.export write it."""
    model = case.model()
    declared = onnx.shape_inference.infer_shapes(model)
    assert any(value.type.tensor_type.elem_type == onnx.TensorProto.UINT8 for value in declared.graph.value_info)
    assert_correct(cut(declared))
    assert parity(declared, build(declared), sample_inputs(declared, 0)) < 1e-4
