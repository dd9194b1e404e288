"""Weights return to where they were stored, in the type they were stored in."""

import numpy as np
import onnx
import pytest
import torch
from ml_dtypes import bfloat16
from onnx import TensorProto, helper, numpy_helper

from tests.engine.torch_form.graphs import floats, model_of
from worker.engine.torch_form import build, parity


def doubled(form):
    """The model after every trained weight was multiplied by two."""
    with torch.no_grad():
        for path in form.parameters.values():
            form.module.get_parameter(path).mul_(2)
    return form.write_back()


def stored(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, bfloat16])
@pytest.mark.parametrize("raw", [True, False])
def test_stored_type_and_form(dtype, raw):
    weight = floats(5, 4).astype(dtype)
    elem_type = helper.np_dtype_to_tensor_dtype(weight.dtype)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {}, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("x", elem_type, [None, 5]))
    data = weight.tobytes() if raw else weight.astype(np.float32).reshape(-1).tolist()
    model.graph.initializer.append(helper.make_tensor("w", elem_type, weight.shape, data, raw=raw))
    written = doubled(build(model))
    assert written.graph.initializer[0].data_type == elem_type
    np.testing.assert_array_equal(stored(written)["w"], weight * dtype(2))
    np.testing.assert_array_equal(stored(model)["w"], weight)


def test_weights_in_constant_nodes():
    weight = floats(5, 4)
    constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight))
    model = model_of([constant, helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (None, 5)}, ["y"])
    form = build(model)
    written = doubled(form)
    np.testing.assert_array_equal(numpy_helper.to_array(written.graph.node[0].attribute[0].t), 2 * weight)
    assert parity(written, form, {"x": floats(3, 5)}) <= 1e-6


def test_initializers_that_are_graph_inputs_are_weights():
    weight = floats(5, 4)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (3, 5), "w": (5, 4)}, ["y"], {"w": weight})
    form = build(model)
    assert list(form.parameters) == ["w"]
    np.testing.assert_array_equal(stored(doubled(form))["w"], 2 * weight)
    assert parity(doubled(form), form, {"x": floats(3, 5)}) <= 1e-6


@pytest.mark.parametrize("chain", [["Identity"], ["Transpose", "Transpose"], ["Identity", "Transpose", "Cast"]])
def test_weights_behind_chains_are_trained(chain):
    nodes, name = [], "w"
    for index, op in enumerate(chain):
        attributes = {"to": TensorProto.FLOAT} if op == "Cast" else {}
        nodes.append(helper.make_node(op, [name], [f"w{index}"], **attributes))
        name = f"w{index}"
    weight = floats(4, 5) if chain.count("Transpose") == 1 else floats(5, 4)
    model = model_of([*nodes, helper.make_node("MatMul", ["x", name], ["y"])], {"x": (None, 5)}, ["y"], {"w": weight})
    form = build(model)
    written = doubled(form)
    np.testing.assert_array_equal(stored(written)["w"], 2 * weight)
    assert parity(written, form, {"x": floats(3, 5)}) <= 1e-6


def test_a_weight_behind_quantisation_passes_its_gradient():
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    weight = floats(5, 4)
    scales = {"scale": np.float32(0.05), "zero": np.int8(0)}
    model = model_of(nodes, {"x": (None, 5)}, ["y"], {"w": weight, **scales})
    form = build(model)
    assert list(form.parameters) == ["w"]
    assert parity(model, form, {"x": floats(3, 5)}) <= 1e-5
    form.module(torch.from_numpy(floats(3, 5)))[0].sum().backward()
    gradient = form.module.get_parameter(form.parameters["w"]).grad
    np.testing.assert_allclose(gradient.numpy(), np.repeat(floats(3, 5).sum(0)[:, None], 4, 1), rtol=1e-5)


def test_a_shared_weight_is_one_parameter():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    model = model_of(nodes, {"x": (None, 4)}, ["y"], {"w": floats(4, 4)})
    form = build(model)
    assert len(list(form.module.parameters())) == 1
    written = doubled(form)
    assert len(written.graph.initializer) == 1
    assert parity(written, form, {"x": floats(3, 4)}) <= 1e-6


def test_unrelated_contents_stay():
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="n")], {"x": (None, 5)}, ["y"], {"w": floats(5, 4)}
    )
    model.metadata_props.add(key="author", value="someone")
    model.graph.doc_string, model.producer_name = "kept", "maker"
    written = build(model).write_back()
    assert onnx.printer.to_text(written) == onnx.printer.to_text(model)
    assert written.SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("trained", ["weight", "average"])
def test_a_statistic_that_shares_its_tensor_keeps_its_value(trained):
    """Exporters store equal tensors once: zeros are the mean of two norms, and a bias."""
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    nodes = [
        helper.make_node("BatchNormalization", ["x", "one", "one", "zero", "one"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "one", "one", "zero", "one"], ["b"]),
        helper.make_node("Conv", ["b", "w", "zero"], ["y"]),
    ]
    tensors = {"one": ones, "zero": zeros, "w": floats(4, 4, 1, 1)}
    form = build(model_of(nodes, {"x": (2, 4, 3, 3)}, ["y"], tensors))
    with torch.no_grad():
        if trained == "weight":
            form.module.get_parameter(form.parameters["zero"]).add_(1)
        else:
            form.module.get_buffer(form.averages[0].path).add_(1)
    assert parity(form.write_back(), form, {"x": floats(2, 4, 3, 3)}) <= 1e-6
