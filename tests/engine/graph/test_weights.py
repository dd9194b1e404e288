"""Where weights lie and what they are stored as: half precision, files beside the model, chains, sharing, exclusion."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.engine.graph.cuts import Cut, assert_correct, assert_cuts, at_random, cut, half, prunable, run
from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.errors import EngineError
from worker.engine.graph import analyze, load_bundle, load_model
from worker.engine.proof import prove
from worker.engine.surgery import prune

PRECISIONS = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


def three_layers(batch: int | str = 2) -> onnx.ModelProto:
    g = GraphBuilder()
    x = g.node("Relu", g.batch_norm(g.conv(g.input((batch, 3, 8, 8)), 3, 12, name="first"), 12))
    x = g.node("Relu", g.conv(x, 12, 10, name="second"))
    return g.model(g.conv(x, 10, 4, name="third"))


def stored_as(model: onnx.ModelProto, kind: int, cast: bool) -> onnx.ModelProto:
    """Weights in half precision: used as they are, or each behind a Cast to float."""
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    casts = []
    for tensor in halved.graph.initializer:
        name = tensor.name
        half_tensor = numpy_helper.from_array(
            numpy_helper.to_array(tensor).astype(dtype), f"{name}_half" if cast else name
        )
        tensor.CopyFrom(half_tensor)
        if cast:
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    if not cast:
        for value in (*halved.graph.input, *halved.graph.output):
            value.type.tensor_type.elem_type = kind
    return halved


@pytest.mark.parametrize("kind", PRECISIONS, ids=PRECISIONS.get)
def test_weights_in_half_precision_behind_casts(kind: int):
    done = cut(stored_as(three_layers(), kind, cast=True))
    assert prunable(done.analysis) == {"first": 12, "second": 10, "third": 0}
    assert_correct(done)
    assert {t.data_type for t in done.pruned.graph.initializer} == {kind}


def test_a_network_that_computes_in_half_precision():
    done = cut(stored_as(three_layers(), TensorProto.FLOAT16, cast=False))
    assert prunable(done.analysis) == {"first": 12, "second": 10, "third": 0}
    assert_correct(done)
    assert (
        run(done.pruned, {done.pruned.graph.input[0].name: np.zeros((2, 3, 8, 8), np.float16)})[0].dtype == np.float16
    )


CHAINS: dict[str, Callable[[GraphBuilder], str]] = {  # each makes a kernel (8, 6, 3, 3)
    "identity": lambda g: g.node("Identity", g.node("Identity", g.weight(8, 6, 3, 3))),
    "transpose": lambda g: g.transpose(g.transpose(g.weight(6, 8, 3, 3), 2, 3, 0, 1), 3, 2, 0, 1),
    "reshape": lambda g: g.reshape(g.weight(8, 54), 8, 6, 3, 3),
    "unsqueeze": lambda g: g.node("Expand", g.node("Unsqueeze", g.weight(8, 6), g.ints(2, 3)), g.ints(8, 6, 3, 3)),
    "slice": lambda g: g.node("Slice", g.weight(10, 6, 3, 3), g.ints(1), g.ints(9), g.ints(0)),
    "cast": lambda g: g.node("Cast", g.constant(g.normal(8, 6, 3, 3).astype(np.float64) / 7), to=TensorProto.FLOAT),
    "standardised": lambda g: standardised(g, g.weight(8, 6, 3, 3)),
    "quantised": lambda g: g.transpose(levels(g, (6, 8, 3, 3), 1), 1, 0, 2, 3),
}


def standardised(g: GraphBuilder, w: str) -> str:
    centred = g.node("Sub", w, g.node("ReduceMean", w, axes=[1, 2, 3]))
    return str(g.node("Div", centred, g.node("Sqrt", g.node("ReduceSumSquare", centred, axes=[1, 2, 3]))))


def levels(g: GraphBuilder, shape: tuple[int, ...], axis: int) -> str:
    scale, zero = g.weight(shape[axis], low=0.01), g.constant(np.zeros(shape[axis], dtype=np.int8))
    values = g.constant(g.rng.integers(-9, 9, shape).astype(np.int8))
    return str(g.node("DequantizeLinear", values, scale, zero, axis=axis))


@pytest.mark.parametrize("constants_as", ["initializer", "node"])
@pytest.mark.parametrize("chain", CHAINS)
def test_weights_behind_chains(chain: str, constants_as: str):
    """Both axes of the kernel are followed back through the chain to what is stored."""
    g = GraphBuilder(constants_as=constants_as)
    x = g.node("Relu", g.conv(g.input((1, 3, 6, 6)), 3, 6, name="before"))
    x = g.node("Relu", g.node("Conv", x, CHAINS[chain](g), pads=[1] * 4, name="behind"))
    done = assert_cuts(g.model(g.conv(x, 8, 4, name="after")))
    assert prunable(done.analysis) == {"before": 6, "behind": 8, "after": 0}


def test_files_beside_the_model(tmp_path: Path):
    model, path = three_layers(), tmp_path / "bundle" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="model.weights", size_threshold=0)
    assert any(t.external_data for t in load_model(path).graph.initializer)
    loaded = load_bundle(path)
    assert not any(t.external_data for t in loaded.graph.initializer)
    done = assert_cuts(loaded)
    np.testing.assert_array_equal(run(done.pruned)[0], run(cut(three_layers()).pruned)[0])


def beside(path: Path, location: str) -> Path:
    """A model whose first weight is said to lie at `location`."""
    model = three_layers()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "1296")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["missing", "../outside", "/etc/hostname", "short", "link"])
def test_files_that_are_missing_or_lie_elsewhere(tmp_path: Path, location: str):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside").write_bytes(bytes(1296))
    (folder / "short").write_bytes(b"few")
    (folder / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(EngineError) as refused:
        load_bundle(beside(folder / "model.onnx", location))
    assert refused.value.code == "external_data"


def test_widths_that_an_earlier_cut_left_odd():
    """A pruned model is pruned again, and again."""
    model = three_layers("batch")
    for seed in range(3):
        analysis = analyze(model)
        plan = at_random(analysis, seed)
        done = Cut(analysis, plan, prune(analysis, plan))
        assert_correct(done)
        model = done.pruned
    assert analyze(model).params < analyze(three_layers("batch")).params


def test_nodes_that_a_cut_adds_have_names_of_their_own_in_the_next_cut():
    g = GraphBuilder()
    x = g.conv(g.input((1, 3, 6, 6)), 3, 16)
    model = g.model(g.conv(g.node("Mul", x, g.conv(g.node("ReduceMean", x, axes=[1]), 1, 16)), 16, 4))
    for _ in range(3):
        done = cut(model)
        assert_correct(done)
        model = done.pruned
    names = [node.name for node in model.graph.node if node.op_type in ("Mul", "ConstantOfShape")]
    assert len(names) == len(set(names)) == 7
    assert analyze(model).layers[0].channels == 2


def test_dynamic_axes_stay_dynamic():
    g = GraphBuilder()
    x = g.node("Relu", g.conv(g.input(("batch", 3, "height", "width"), name="image"), 3, 8))
    x = g.node("Concat", x, g.node("Resize", x, "", g.constant(np.ones(4, np.float32))), axis=1)
    done = assert_cuts(g.model(g.conv(x, 16, 4)))
    dims = done.pruned.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, "height", "width"]
    assert len(done.pruned.graph.output[0].type.tensor_type.shape.dim) == 4
    for shape in ((1, 3, 5, 9), (4, 3, 16, 12)):
        (y,) = run(done.pruned, {"image": np.ones(shape, np.float32)})
        assert y.shape == (shape[0], 4, *shape[2:])
    proof = prove(done.analysis, done.plan, done.pruned)
    assert len({run_.input_shapes["image"] for run_ in proof.runs}) == 3  # another batch and another size were compared


def test_layers_that_are_frozen_by_name():
    """Named by node or by weight, a layer keeps its channels, and tells so; what feeds it may shrink."""
    model = three_layers()
    weight = next(n.input[1] for n in model.graph.node if n.name == "second")
    for name in ("second", weight):
        analysis = analyze(model, exclude=(name,))
        assert prunable(analysis) == {"first": 12, "second": 0, "third": 0}
        assert analysis.layers[1].pinned_reason == "excluded by the job"
        plan = half(analysis)
        assert_correct(Cut(analysis, plan, prune(analysis, plan)))
    with pytest.raises(EngineError, match="no node or weight named"):
        analyze(model, exclude=("fourth",))


def test_one_kernel_read_by_two_layers_is_cut_once():
    g = GraphBuilder()
    x, w = g.conv(g.input((1, 3, 6, 6)), 3, 8), g.weight(8, 8, 3, 3, name="shared")
    for _ in range(2):
        x = g.node("Relu", g.node("Conv", x, w, pads=[1] * 4))
    done = assert_cuts(g.model(g.conv(x, 8, 4)))
    shared = [tuple(t.dims) for t in done.pruned.graph.initializer if t.name.startswith("shared")]
    assert shared == [(4, 4, 3, 3)]  # its inputs and its outputs are the same channels now


@pytest.mark.parametrize("conversions", [("Identity",), ("DequantizeLinear",), ("DequantizeLinear", "Identity")])
def test_one_vector_converted_once_for_several_layers_is_cut_for_each(conversions: tuple[str, ...]):
    """As quantisers store the equal biases of unrelated layers."""
    g = GraphBuilder()
    bias = g.constant(g.rng.integers(-9, 9, 8).astype(np.int32 if conversions[0] == "DequantizeLinear" else np.float32))
    for op in conversions:
        bias = g.node(op, bias, *([g.constant(np.float32(0.1))] if op == "DequantizeLinear" else []))
    x = g.input((1, 3, 6, 6))
    for given in (3, 8, 8):
        x = g.node("Relu", g.node("Conv", x, g.weight(8, given, 3, 3), bias, pads=[1] * 4))
    done = assert_cuts(g.model(g.conv(x, 8, 4)))
    assert [len(group) for group in done.analysis.groups] == [8, 8, 8]


@pytest.mark.parametrize("conversions", [(), ("DequantizeLinear",), ("QuantizeLinear", "DequantizeLinear")])
def test_one_gain_quantised_for_several_layers_is_cut_for_each(conversions: tuple[str, ...]):
    """(C, 1, 1), as GroupNorm's are stored."""
    g = GraphBuilder(18)
    step, zero = g.constant(0.01), g.constant(np.array(0, np.int8))
    gain = g.rng.uniform(0.5, 1.0, (8, 1, 1)).astype(np.float32)
    stored = g.constant((gain / 0.01).astype(np.int8) if conversions == ("DequantizeLinear",) else gain)
    for op in conversions:
        stored = g.node(op, stored, step, zero)
    x = g.input((1, 3, 6, 6))
    for given in (3, 8, 8):
        x = g.node("Mul", g.conv(x, given, 8), stored)
    done = assert_cuts(g.model(g.conv(x, 8, 4)))
    assert [len(group) for group in done.analysis.groups] == [8, 8, 8]


def test_a_layer_norm_is_waived_only_when_allowed():
    g = GraphBuilder()
    x = g.linear(g.input((2, 5, 6)), 6, 8)
    x = g.node("LayerNormalization", x, g.weight(8, low=0.5), g.weight(8), name="norm")
    model = g.model(g.linear(x, 8, 4))
    assert not analyze(model).groups
    done = cut(model, allow_inexact=True)
    assert assert_correct(done).waived_nodes == ("norm",)


@pytest.mark.parametrize("kind", ["INT8", "INT16", "INT4", "FLOAT8E4M3FN"])
def test_quantised_weights_are_parameters_whatever_their_type(kind: str):
    g = GraphBuilder(opset=21, ir_version=10)

    def quantised(outputs: int, inputs: int) -> str:
        values = g.rng.integers(-7, 8, outputs * inputs * 9).tolist()
        name = g.name("w")
        g.initializers.append(helper.make_tensor(name, getattr(TensorProto, kind), [outputs, inputs, 3, 3], values))
        scale = g.constant(g.rng.uniform(0.05, 0.1, outputs).astype(np.float32))
        return g.node("DequantizeLinear", name, scale, axis=0)

    maps = g.node("Relu", g.node("Conv", g.input((1, 3, 8, 8)), quantised(8, 3)))
    assert analyze(g.model(g.node("Conv", maps, quantised(5, 8)))).params == 9 * (8 * 3 + 5 * 8) + 8 + 5


def small_stem(*shape: int | str) -> onnx.ModelProto:
    """Six convolutions of stride two without padding: they take at least 127 pixels."""
    g = GraphBuilder()
    x = g.input(shape)
    for inputs in (3, 8, 8, 8, 8, 8):
        x = g.node("Relu", g.node("Conv", x, g.weight(8, inputs, 3, 3), strides=[2, 2]))
    return g.model(g.gemm(g.node("Flatten", g.node("GlobalAveragePool", x)), 8, 4))


def test_a_dynamic_input_is_taken_large_enough_for_every_layer():
    dynamic, fixed = (analyze(small_stem("b", 3, *sides)) for sides in (("h", "w"), (224, 224)))
    assert dynamic.facts.sizes == {"input_1": (2, 3, 224, 224)}
    assert dynamic.macs == fixed.macs


def test_a_sound_is_taken_long_enough_for_every_layer():
    g = GraphBuilder()
    x = g.node("Unsqueeze", g.input(("batch", "samples")), g.ints(1))
    for inputs, kernel, stride in ((1, 10, 5), (8, 3, 2), (8, 3, 2), (8, 3, 2), (8, 3, 2)):
        x = g.node("Relu", g.node("Conv", x, g.weight(8, inputs, kernel), strides=[stride]))
    assert_correct(cut(g.model(g.node("Conv", x, g.weight(4, 8, 1)))))


def test_dimensions_of_one_name_are_alike():
    g = GraphBuilder()
    tokens = g.node("Gather", g.weight(10, 8), g.input(("batch", "seq"), kind=TensorProto.INT64), axis=0)
    boxes = g.linear(g.input(("batch", "seq", 4)), 4, 8)
    wide = g.node("Relu", g.linear(g.node("Add", tokens, boxes), 8, 12))
    assert_correct(cut(g.model(g.linear(wide, 12, 3))))
