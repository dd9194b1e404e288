"""Every op rule against ONNX Runtime: with inputs at run time, and folded from constants."""

import numpy as np
import onnx
import pytest
from layer_cases import CASES, Case, Known
from onnx import helper, numpy_helper

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
