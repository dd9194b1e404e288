"""What the builder does around single ops: shapes, constants, control flow, and what it refuses."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from tests.engine.graph.graph_builder import GraphBuilder
from tests.engine.torch_form.graphs import floats, model_of
from worker.engine.errors import EngineError
from worker.engine.torch_form import build, parity


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, name=f"{op}_of_{outputs[0]}", **attributes)


def shape_chain_model():
    """Reshape by [N, H W, -1] and divide by the root of H W, both computed from a Shape, as exporters write it."""
    stored = {
        "zero": np.int64(0),
        "axes": np.array([0], np.int64),
        "two": np.array([2], np.int64),
        "four": np.array([4], np.int64),
        "minus": np.array([-1], np.int64),
        "w": floats(6, 3, 1, 1),
    }
    nodes = [
        node("Conv", ["x", "w"], ["h"]),
        node("Shape", ["h"], ["shape"]),
        node("Gather", ["shape", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n", "axes"], ["n1"]),
        node("Slice", ["shape", "two", "four", "axes"], ["hw"]),
        node("ReduceProd", ["hw"], ["area"], axes=[0]),
        node("Concat", ["n1", "area", "minus"], ["target"], axis=0),
        node("Reshape", ["h", "target"], ["r"]),
        node("Cast", ["area"], ["area_float"], to=TensorProto.FLOAT),
        node("Sqrt", ["area_float"], ["root"]),
        node("Squeeze", ["root", "axes"], ["scalar"]),
        node("Div", ["r", "scalar"], ["y"]),
    ]
    return model_of(nodes, {"x": ("n", 3, "h", "w")}, ["y", "target"], stored)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (5, 3, 6, 2)])
def test_shape_chains_follow_the_input(shape):
    model = shape_chain_model()
    assert parity(model, build(model), {"x": floats(*shape)}) <= 1e-6


def test_shape_chains_cost_no_tensor():
    """Only the outputs that are shapes become tensors; the chain itself is Python arithmetic."""
    form = build(shape_chain_model())
    results = []

    class Recorder(fx.Interpreter):
        def call_function(self, target, args, kwargs):
            result = super().call_function(target, args, kwargs)
            results.append(result)
            return result

    _, target = Recorder(form.module).run(torch.zeros(2, 3, 4, 4))
    tensors = [r for r in results if isinstance(r, torch.Tensor)]
    assert len(tensors) == 4  # Conv, Reshape, Div, and the output `target`
    assert target.tolist() == [2, 16, -1]


def test_traces_without_graph_breaks():
    compiled = torch.compile(build(shape_chain_model()).module, backend="eager", fullgraph=True, dynamic=True)
    for batch in (2, 3):
        x = torch.from_numpy(floats(batch, 3, 4, 4))
        torch.testing.assert_close(compiled(x)[0], build(shape_chain_model()).module(x)[0])


def test_constants_are_folded():
    """Arithmetic on constants leaves no call behind."""
    stored = {"a": np.array([2, 3], np.int64), "b": np.array([1, -4], np.int64)}
    nodes = [node("Add", ["a", "b"], ["c"]), node("Abs", ["c"], ["target"]), node("Reshape", ["x", "target"], ["y"])]
    form = build(model_of(nodes, {"x": (1, 3)}, ["y"], stored))
    assert [n.target for n in form.module.graph.nodes if n.op == "call_function"] == [torch.reshape]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_size_fixed_by_the_exporter_is_freed(batch):
    stored = {"w": floats(6, 3, 1, 1), "target": np.array([1, -1], np.int64), "v": floats(24, 5)}
    nodes = [
        node("Conv", ["x", "w"], ["h"]),
        node("Reshape", ["h", "target"], ["r"]),
        node("MatMul", ["r", "v"], ["y"]),
    ]
    model = model_of(nodes, {"x": (1, 3, 2, 2)}, ["y"], stored)
    form = build(model)
    assert parity(model, form, {"x": floats(1, 3, 2, 2)}) <= 1e-6
    assert form.module(torch.zeros(batch, 3, 2, 2))[0].shape == (batch, 5)


def test_trained_are_weights_and_no_scalars_masks_or_statistics():
    stored = {
        "conv": floats(4, 3, 1, 1),
        "bias": floats(4),
        "scale": floats(1, 4, 1, 1),
        "bn_scale": floats(4),
        "bn_bias": floats(4),
        "mean": floats(4),
        "variance": np.abs(floats(4)),
        "root": np.float32(0.5),
        "mask": np.where(np.eye(4, dtype=bool), 0, -100).astype(np.float32)[None, None],
        "infinite": np.where(np.eye(4, dtype=bool), 0, -np.inf).astype(np.float32)[None, None],
        "low": np.float32(0),
        "input_mean": floats(1, 3, 1, 1),
    }
    nodes = [
        node("Sub", ["x", "input_mean"], ["c"]),
        node("Conv", ["c", "conv", "bias"], ["h"]),
        node("BatchNormalization", ["h", "bn_scale", "bn_bias", "mean", "variance"], ["n"]),
        node("Mul", ["n", "scale"], ["m"]),
        node("Mul", ["m", "root"], ["s"]),
        node("Add", ["s", "mask"], ["a"]),
        node("Add", ["a", "infinite"], ["i"]),
        node("Clip", ["i", "low"], ["y"]),
    ]
    form = build(model_of(nodes, {"x": (None, 3, 4, 4)}, ["y"], stored))
    assert set(form.parameters) == {"conv", "bias", "scale", "bn_scale", "bn_bias"}
    assert {average.name for average in form.averages} == {"mean", "variance"}


def test_numbers_that_a_weight_is_computed_with_are_not_trained():
    """Weight standardisation: the derivative by an exponent of negative numbers is none, and an epsilon stays."""
    stored = {
        "w": floats(4, 3, 1, 1),
        "gain": np.float32(0.5),
        "two": np.float32(2),
        "small": np.array([1e-5], np.float32),
    }
    nodes = [
        node("ReduceMean", ["w"], ["mean"], axes=[1, 2, 3]),
        node("Sub", ["w", "mean"], ["centred"]),
        node("Pow", ["centred", "two"], ["squares"]),
        node("ReduceMean", ["squares"], ["variance"], axes=[1, 2, 3]),
        node("Add", ["variance", "small"], ["positive"]),
        node("Sqrt", ["positive"], ["deviation"]),
        node("Div", ["centred", "deviation"], ["standardised"]),
        node("Mul", ["standardised", "gain"], ["scaled"]),
        node("Conv", ["x", "scaled"], ["y"]),
    ]
    form = build(model_of(nodes, {"x": (None, 3, 4, 4)}, ["y"], stored))
    assert set(form.parameters) == {"w"}
    form.module(torch.from_numpy(floats(2, 3, 4, 4)))[0].square().sum().backward()
    assert form.module.get_parameter(form.parameters["w"]).grad.isfinite().all()


def test_an_unknown_op_on_a_gradient_path_is_named():
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("STFT", ["h", "step", "", "length"], ["d"]),
        node("Squeeze", ["d"], ["y"]),
    ]
    stored = {"w": floats(1, 1), "step": np.int64(1), "length": np.int64(4)}
    model = model_of(nodes, {"x": (2, 4, 1)}, ["y"], stored, opset=20)
    with pytest.raises(EngineError) as caught:
        build(model)
    assert caught.value.code == "unsupported_op"
    assert caught.value.node == "STFT_of_d"
    assert "STFT" in caught.value.message


def test_an_unknown_op_off_the_gradient_path_runs_in_onnx_runtime():
    nodes = [
        node("STFT", ["x", "step", "", "length"], ["d"]),
        node("ReduceSum", ["d", "last"], ["s"]),
        node("MatMul", ["s", "w"], ["y"]),
    ]
    stored = {"w": floats(1, 3), "step": np.int64(1), "length": np.int64(4), "last": np.array([-1], np.int64)}
    model = model_of(nodes, {"x": (2, 4, 1)}, ["y"], stored, opset=20)
    assert parity(model, build(model), {"x": floats(2, 4, 1)}) <= 1e-5


def test_control_flow_runs_in_onnx_runtime_with_what_it_captures():
    """A Loop that adds the captured convolution output three times, and decides then that it was enough."""
    body = helper.make_graph(
        [
            node("Less", ["i", "two"], ["go_on"]),
            node("Add", ["sum", "h"], ["new_sum"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("new_sum", TensorProto.FLOAT, None),
        ],
    )
    nodes = [node("Conv", ["x", "w"], ["h"]), node("Loop", ["", "true", "h"], ["y"], body=body)]
    stored = {"w": floats(2, 3, 1, 1), "two": np.int64(2), "true": np.bool_(True)}
    model = model_of(nodes, {"x": (None, 3, 4, 4)}, ["y"], stored)
    assert parity(model, build(model), {"x": floats(2, 3, 4, 4)}) <= 1e-6


def if_model(condition_nodes, stored):
    branches = {
        name: helper.make_graph(
            [node(op, ["h", f"{name}_k"], [f"{name}_y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(floats(2, 1, 1, seed=len(name)), f"{name}_k")],
        )
        for name, op in (("then_branch", "Mul"), ("else_branch", "Add"))
    }
    nodes = [node("Conv", ["x", "w"], ["h"]), *condition_nodes, node("If", ["c"], ["y"], **branches)]
    return model_of(nodes, {"x": ("n", 3, 4, 4)}, ["y"], {"w": floats(2, 3, 1, 1), **stored})


@pytest.mark.parametrize("condition", [True, False])
def test_if_with_a_known_condition_is_its_branch(condition):
    model = if_model([], {"c": np.array(condition)})
    form = build(model)
    assert parity(model, form, {"x": floats(2, 3, 4, 4)}) <= 1e-6
    assert not [n for n in form.module.graph.nodes if n.op == "call_module"]


@pytest.mark.parametrize("batch", [1, 2])
def test_if_at_run_time_passes_gradients(batch):
    condition = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["n"]),
        node("Equal", ["n", "one"], ["c"]),
    ]
    model = if_model(condition, {"zero": np.int64(0), "one": np.int64(1)})
    form = build(model)
    x = floats(batch, 3, 4, 4)
    assert parity(model, form, {"x": x}) <= 1e-6
    form.module(torch.from_numpy(x))[0].sum().backward()
    assert form.module.get_parameter(form.parameters["w"]).grad.abs().sum() > 0


def test_half_precision_is_computed_in_single():
    stored = {"w": floats(4, 3, 3, 3).astype(np.float16), "k": np.float16(0.1)}
    nodes = [
        node("Conv", ["x", "w"], ["h"]),
        node("Mul", ["h", "k"], ["m"]),
        node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        node("Cast", ["f"], ["y"], to=TensorProto.FLOAT16),
    ]
    model = model_of(nodes, {}, ["y"], stored)
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT16, [None, 3, 8, 8]))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    form = build(model)
    assert form.module(torch.zeros(1, 3, 8, 8))[0].dtype == torch.float32
    assert parity(model, form, {"x": floats(2, 3, 8, 8).astype(np.float16)}) <= 1e-5


def test_weights_outside_the_file_are_refused():
    model = model_of([node("MatMul", ["x", "w"], ["y"])], {"x": (None, 4)}, ["y"], {"w": floats(4, 4)})
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    with pytest.raises(EngineError, match="outside the ONNX file"):
        build(model)


def test_nodes_may_stand_in_any_order():
    """As ONNX Runtime's own converter to float16 leaves them."""
    b = GraphBuilder()
    x = b.input(("batch", 3, 8, 8))
    model = b.model(b.conv(b.node("Relu", b.conv(x, 3, 6)), 6, 4))
    backwards = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(backwards)
    assert parity(model, build(model), {x: floats(2, 3, 8, 8)}) <= 1e-5


def test_a_sequence_on_a_gradient_path_is_refused_by_name():
    b = GraphBuilder()
    parts = b.node("SplitToSequence", b.conv(b.input(("batch", 3, 8, 8)), 3, 8), b.constant(np.array(4)), axis=1)
    model = b.model(b.conv(b.node("ConcatFromSequence", parts, axis=1), 8, 4))
    with pytest.raises(EngineError, match="SplitToSequence"):
        build(model)


def test_declared_shapes_that_contradict_the_nodes_are_refused():
    model = model_of([node("MatMul", ["x", "w"], ["y"])], {"x": (None, 4)}, ["y"], {"w": floats(4, 4)})
    model.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 4]))
    with pytest.raises(EngineError, match="contradict"):
        build(model)


def test_layers_behind_a_loop_that_captures_activations_are_trained():
    """All that the node itself reads is constant: its trip count and its first state. The body decides when to stop."""
    b = GraphBuilder(13)
    x = b.node("Relu", b.conv(b.input((2, 3, 6, 6)), 3, 8))
    inner = b.inside()
    declared = [
        helper.make_tensor_value_info(inner.name(stem), kind, shape)
        for stem, kind, shape in (
            ("turn", TensorProto.INT64, []),
            ("go", TensorProto.BOOL, []),
            ("sum", TensorProto.FLOAT, (2, 8, 6, 6)),
        )
    ]
    total = inner.node("Add", declared[2].name, inner.node("Mul", x, inner.constant(0.5)))
    early = inner.node("Less", declared[0].name, inner.constant(np.array(2)))
    results = [
        helper.make_tensor_value_info(early, TensorProto.BOOL, []),
        helper.make_tensor_value_info(total, TensorProto.FLOAT, (2, 8, 6, 6)),
    ]
    first = b.constant(np.zeros((2, 8, 6, 6), np.float32))
    y = b.node("Loop", b.constant(np.array(9)), b.constant(np.array(True)), first, body=inner.body(declared, results))
    model = b.model(b.conv(b.node("Relu", y), 8, 4))
    form = build(model)
    weights = {name for node in model.graph.node if node.op_type == "Conv" for name in node.input[1:]}
    assert weights <= form.parameters.keys()
    (result,) = form.module(torch.from_numpy(floats(2, 3, 6, 6)))
    assert result.requires_grad
    assert parity(model, form, {model.graph.input[0].name: floats(2, 3, 6, 6)}) <= 1e-5
