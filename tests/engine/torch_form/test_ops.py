"""Every op rule against ONNX Runtime: with inputs at run time, and folded from constants."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from tests.engine.torch_form.layer_cases import CASES, Case, Known
from worker.engine.torch_form import build, parity
from worker.engine.torch_form.registry import RULES, load_rules

TOLERANCE = 1e-4
EVERY = [pytest.param(case, opset, id=f"{case}-{opset}-{i}") for i, case in enumerate(CASES) for opset in case.opsets]


@pytest.mark.parametrize(("case", "opset"), EVERY)
def test_run_time_inputs(case, opset):
    model, inputs = graph_of(case, opset, stored=False)
    assert parity(model, build(model), inputs) <= TOLERANCE


@pytest.mark.parametrize(("case", "opset"), [p for p in EVERY if p.values[0].folds])
def test_stored_inputs_are_folded(case, opset):
    """With all inputs known, the rule computes its result while the graph is built."""
    model, inputs = graph_of(case, opset, stored=True)
    form = build(model)
    assert parity(model, form, inputs) <= TOLERANCE


def test_every_rule_has_a_case():
    load_rules()
    assert set(RULES) - {"Constant"} == {case.op for case in CASES}


@pytest.mark.parametrize("quantised_to", [np.uint8, np.int8])
def test_ops_on_integers_are_given_the_quantised_numbers_as_integers(quantised_to):
    """A layer in ONNX Runtime's QOperator form: QuantizeLinear has a torch rule, QLinearConv has none."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-99, 99, (4, 3, 3, 3)).astype(np.int8)
    scale = numpy_helper.from_array(np.float32(0.02), "scale")
    tensors = [scale, numpy_helper.from_array(quantised_to(3), "zero"), numpy_helper.from_array(weights, "w")]
    tensors += [numpy_helper.from_array(np.float32(0.3), "out_scale"), numpy_helper.from_array(np.int8(0), "w_zero")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("QLinearConv", ["q", "scale", "zero", "w", "scale", "w_zero", "out_scale", "zero"], ["y"]),
        helper.make_node("DequantizeLinear", ["y", "out_scale", "zero"], ["z"]),
    ]
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    graph = helper.make_graph(nodes, "graph", [typed("x", x)], [helper.make_empty_tensor_value_info("z")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    assert parity(model, build(model), {"x": x}) <= TOLERANCE


def test_quantised_numbers_are_resized_as_the_integers_that_they_are():
    """As ONNX Runtime's quantiser leaves a bilinear Resize between QLinear ops. Gradients pass through it."""
    x = np.random.default_rng(0).uniform(0, 1, (2, 3, 8, 8)).astype(np.float32)
    tensors = [numpy_helper.from_array(np.float32(0.02), "scale"), numpy_helper.from_array(np.uint8(3), "zero")]
    tensors += [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("Resize", ["q", "", "scales"], ["r"], mode="linear"),
        helper.make_node("DequantizeLinear", ["r", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "graph", [typed("x", x)], [helper.make_empty_tensor_value_info("y")], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    form = build(model)
    assert parity(model, form, {"x": x}) <= TOLERANCE
    given = torch.from_numpy(x).requires_grad_()
    form.module(given)[0].sum().backward()
    torch.testing.assert_close(given.grad, torch.full_like(given, 4.0))


def graph_of(case: Case, opset: int, stored: bool):
    """The case as model and the inputs to feed. With everything stored, a counter of the batch keeps one input."""
    values, feed, tensors, names = [], {}, [], []
    for index, item in enumerate(case.inputs):
        name = f"x{index}" if item is not None else ""
        names.append(name)
        if isinstance(item, Known) or (stored and item is not None):
            array = item.value if isinstance(item, Known) else item
            tensors.append(numpy_helper.from_array(array, name))
        elif item is not None:
            values.append(typed(name, item))
            feed[name] = item
    outputs = [f"y{index}" for index in range(case.outputs)]
    nodes = [helper.make_node(case.op, names, outputs, name="node", **case.attributes)]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    if not feed:
        values, feed = [typed("unused", np.zeros(1, np.float32))], {"unused": np.zeros(1, np.float32)}
    graph = helper.make_graph(nodes, "graph", values, results, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model), feed


def typed(name: str, array: np.ndarray):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
