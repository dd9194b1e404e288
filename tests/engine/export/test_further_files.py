"""float16, INT8 and safetensors: each file runs, and computes what the float32 model does."""

import errno
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx.reference import ReferenceEvaluator
from safetensors.torch import save_file

from tests.engine.graph.graph_builder import GraphBuilder
from tests.largest_file import largest_file
from tests.worker.networks import convnet, double_precision_input
from worker.engine.allocation import allocate, macs_limit
from worker.engine.criteria import score
from worker.engine.errors import EngineError
from worker.engine.export import (
    agreement,
    check_slim_network,
    quantise,
    save_state_dict,
    to_half_precision,
    too_large_for_float16,
)
from worker.engine.graph import analyze
from worker.engine.measure.forked import in_fork
from worker.engine.surgery import prune

LOADER = Path(__file__).resolve().parents[3] / "examples" / "load_slim.py"


def exported(network):
    """The network as ONNX with its state dict's names and with BatchNormalization."""
    file = io.BytesIO()
    torch.onnx.export(
        network,
        torch.zeros(2, 3, 64, 64),
        file,
        dynamo=False,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["image"],
        dynamic_axes={"image": {0: "n"}},
    )
    return onnx.load_from_string(file.getvalue())


@pytest.fixture
def images():
    return [np.random.default_rng(seed).random((8, 3, 12, 12), dtype=np.float32) for seed in range(4)]


@pytest.mark.parametrize("keep_io", [True, False])
def test_half_precision_computes_the_same_in_half_the_size(images, keep_io):
    model = convnet(width=64)
    half = to_half_precision(model, keep_io=keep_io)
    found = agreement(model, half, [{"image": batch} for batch in images])
    assert found.compared == 4
    assert 0 < found.max_relative_error < 0.01
    assert half.ByteSize() < 0.6 * model.ByteSize()
    (value,) = half.graph.input
    wanted = onnx.TensorProto.FLOAT if keep_io else onnx.TensorProto.FLOAT16
    assert value.type.tensor_type.elem_type == half.graph.output[0].type.tensor_type.elem_type == wanted
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT  # the given model stays


def test_half_precision_leaves_nodes_alone_whose_constants_do_not_fit():
    """An exporter left BatchNormalizations with running variances of millions."""
    g = GraphBuilder(13)
    x = g.conv(g.input(("n", 3, 12, 12), "x"), 3, 8)
    normed = g.node("BatchNormalization", x, *(g.constant(np.float32([v] * 8)) for v in (1e4, 0.1, 1e3, 9.8e7)))
    model = g.model(g.conv(g.node("Relu", normed), 8, 4))
    half = to_half_precision(model)
    onnx.checker.check_model(half)
    inputs = [{"x": np.random.default_rng(0).random((2, 3, 12, 12), dtype=np.float32)}]
    assert 0 < agreement(model, half, inputs).max_relative_error < 0.01


def test_half_precision_leaves_nodes_alone_whose_values_do_not_fit():
    """Between layers that scale up and down again: a runtime that honours every Cast gets there, too."""
    g = GraphBuilder(17, seed=3)
    x = g.node("Relu", g.conv(g.input((1, 3, 8, 8), "image"), 3, 8))
    x = g.node("Mul", g.conv(x, 8, 8), g.constant(np.full((8, 1, 1), 3e4, np.float32)))
    x = g.node("Mul", g.node("Relu", x), g.constant(np.full((8, 1, 1), 1e-4, np.float32)))
    model = g.model(g.conv(x, 8, 4))
    feed = {"image": 3 * np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    too_large = too_large_for_float16(model, [feed])
    assert len(too_large) == 2
    (expected,) = ReferenceEvaluator(model).run(None, feed)
    (plain,) = ReferenceEvaluator(to_half_precision(model)).run(None, feed)
    assert not np.isfinite(plain).all()
    (found,) = ReferenceEvaluator(to_half_precision(model, too_large=too_large)).run(None, feed)
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


def _scaled(kind):
    """Networks with values beyond float16's range in places of their own, and their input."""
    g = GraphBuilder(17, seed=3)
    image = np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)

    def times(x, factor):
        return g.node("Mul", x, g.constant(np.float32(factor)))

    if kind == "input":
        return g.model(g.conv(times(g.input((1, 3, 8, 8), "x"), 1e-5), 3, 4)), 1e5 * image
    if kind == "integers":
        x = g.node("Cast", g.input((1, 3, 8, 8), "x", onnx.TensorProto.INT32), to=onnx.TensorProto.FLOAT)
        return g.model(times(g.conv(x, 3, 4), 1e-5)), (1e5 * image).astype(np.int32)
    x = g.conv(g.input((1, 3, 8, 8), "x"), 3, 4)
    if kind == "output":
        return g.model(times(x, 1e5)), image
    return g.model(g.node("Add", *(times(times(x, 1e5), factor) for factor in (1e-5, 2e-5)))), image


@pytest.mark.parametrize("kind", ["input", "integers", "output", "two readers"])
def test_half_precision_keeps_what_does_not_fit_in_float32_from_end_to_end(kind):
    model, image = _scaled(kind)
    half = to_half_precision(model, too_large=too_large_for_float16(model, [{"x": image}]))
    onnx.checker.check_model(half, full_check=True)
    assert agreement(model, half, [{"x": image}]).max_relative_error < 0.01
    expected, found = (ReferenceEvaluator(each).run(None, {"x": image})[0] for each in (model, half))
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


def _quantised_layer(g, x):
    scale, zero, fine = g.constant(np.float32(0.02)), g.constant(np.uint8(0)), g.constant(np.float32(0.002))
    weights = g.constant(g.rng.integers(-60, 60, (8, 8, 3, 3)).astype(np.int8))
    operands = (scale, zero, weights, fine, g.constant(np.int8(0)), scale, zero)
    result = g.node("QLinearConv", g.node("QuantizeLinear", x, scale, zero), *operands, pads=[1] * 4)
    return g.node("DequantizeLinear", result, scale, zero)


IN_FLOAT32_ALONE = {
    "Celu": lambda g, x: g.node("Celu", x),
    "IsInf": lambda g, x: g.node("Where", g.node("IsInf", x), g.constant(np.float32(0)), x),
    "QLinearConv": _quantised_layer,
}


@pytest.mark.parametrize("op", IN_FLOAT32_ALONE)
def test_half_precision_leaves_ops_alone_that_take_no_float16(op):
    g = GraphBuilder(13)
    x = g.node("Relu", g.conv(g.input((2, 3, 12, 12), "x"), 3, 8))
    level = 0.05 if op == "QLinearConv" else 0.01  # what it rounds may come out a level apart
    assert_same_in_half_precision(g.model(g.conv(IN_FLOAT32_ALONE[op](g, x), 8, 4)), within=level)


@pytest.mark.parametrize("kind", ["op", "values"])
def test_half_precision_casts_behind_ops_that_only_the_runtime_knows(kind):
    """As in files that ONNX Runtime has optimised."""
    g = GraphBuilder(17)
    operands = (g.input((2, 3, 12, 12), "x"), g.weight(8, 3, 3, 3), g.weight(8))
    x = g.node("FusedConv", *operands, pads=[1] * 4, activation="Relu", domain="com.microsoft")
    if kind == "op":
        x = g.node("Max", x, g.constant(np.float32(0.1)))
    else:
        x = g.node("Mul", g.node("Mul", x, g.constant(np.float32(1e6))), g.constant(np.float32(1e-6)))
    assert_same_in_half_precision(g.model(g.conv(x, 8, 4), extra_domains=["com.microsoft"]))


def assert_same_in_half_precision(model, within=0.01):
    inputs = [{"x": np.random.default_rng(0).random((2, 3, 12, 12), dtype=np.float32)}]
    half = to_half_precision(model, too_large=too_large_for_float16(model, inputs))
    assert 0 < agreement(model, half, inputs).max_relative_error < within


@pytest.mark.parametrize("order", [(1, 0, 2), (1, 2, 0), None])
def test_a_sequence_turned_before_it_is_classified_does_not_kill_the_runtime(order):
    """As recognisers of text have it behind their recurrent layers."""
    g = GraphBuilder(17)
    x = g.input((4, 4, 4), "x")
    turned = g.node("Transpose", x, **({"perm": order} if order else {}))
    model = g.model(g.node("MatMul", turned, g.constant(np.ones((4, 5), np.float32))))
    inputs = [{"x": np.random.default_rng(0).random((4, 4, 4), dtype=np.float32)}]
    half = to_half_precision(model, keep_io=False)
    assert in_fork(lambda: str(agreement(model, half, inputs).max_relative_error < 0.01), seconds=120) == "True"


def test_agreement_of_probabilities_near_zero_is_that_of_their_logits():
    g = GraphBuilder(17)
    logits = g.node("Add", g.conv(g.input((1, 3, 12, 12), "x"), 3, 4), g.constant(np.float32(-16)))
    model = g.model(g.node("Sigmoid", logits))
    other = onnx.ModelProto()
    other.CopyFrom(model)
    bias = next(t for t in other.graph.initializer if onnx.numpy_helper.to_array(t).size == 1)
    bias.CopyFrom(onnx.numpy_helper.from_array(np.float32(-13), bias.name))
    inputs = [{"x": np.random.default_rng(0).random((1, 3, 12, 12), dtype=np.float32)}]
    assert 0 < agreement(model, to_half_precision(model), inputs).max_relative_error < 0.01
    assert agreement(model, other, inputs).max_relative_error > 0.1


def test_int8_has_quantised_weights_per_channel_and_similar_outputs(images, tmp_path):
    model = convnet(width=64)
    quantised = quantise(model, images, tmp_path)
    assert list(tmp_path.iterdir()) == []
    types = {tensor.data_type for tensor in quantised.graph.initializer if len(tensor.dims) == 4}
    assert types == {onnx.TensorProto.INT8}
    scales = [t for t in quantised.graph.initializer if t.name.endswith("conv1.weight_scale")]
    assert [list(scale.dims) for scale in scales] == [[64]]
    assert quantised.ByteSize() < 0.5 * model.ByteSize()
    found = agreement(model, quantised, [{"image": batch} for batch in images])
    assert 0 < found.max_relative_error < 0.1


@pytest.mark.parametrize("precision", ["half", "double"])
def test_int8_of_a_model_whose_images_are_not_in_float32(images, tmp_path, precision):
    """Calibrated on images as the dataset has them, in float32; a half-precision one becomes smaller by it, too."""
    whole = convnet(width=64)
    model = double_precision_input(whole) if precision == "double" else to_half_precision(whole, keep_io=False)
    quantised = quantise(model, images, tmp_path)
    types = [tensor.data_type for tensor in quantised.graph.initializer if len(tensor.dims) == 4]
    assert types == [onnx.TensorProto.INT8] * 2
    assert quantised.ByteSize() < 0.7 * model.ByteSize()
    assert 0 < agreement(model, quantised, [{"image": batch} for batch in images]).max_relative_error < 0.1


@pytest.mark.parametrize(("full_range", "largest"), [(False, 64), (True, 127)])
def test_int8_weights_leave_a_bit_for_sums_of_two_products_in_16_bits(images, tmp_path, full_range, largest):
    quantised = quantise(convnet(width=64), images, tmp_path, full_range=full_range)
    weights = [onnx.numpy_helper.to_array(t) for t in quantised.graph.initializer if len(t.dims) == 4]
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == largest
    assert (2 * 255 * largest < 2**15) is not full_range


def test_int8_of_a_grouped_transposed_convolution_with_a_bias(images, tmp_path):
    g = GraphBuilder(17)
    x = g.node("Relu", g.conv(g.input(("n", 3, 12, 12), "image"), 3, 16))
    kernel, bias = g.weight(16, 4, 3, 3), g.weight(16, low=-0.5)
    model = g.model(g.conv(g.node("ConvTranspose", x, kernel, bias, group=4, pads=[1] * 4), 16, 2))
    quantised = quantise(model, images, tmp_path)
    types = [tensor.data_type for tensor in quantised.graph.initializer if len(tensor.dims) == 4]
    assert types == [onnx.TensorProto.INT8] * 3
    assert 0 < agreement(model, quantised, [{"image": batch} for batch in images]).max_relative_error < 0.1


def test_a_model_that_the_quantiser_refuses_is_an_error_with_a_way_out(images, tmp_path):
    with pytest.raises(EngineError, match="cannot quantise") as error:
        quantise(convnet(), [np.zeros((1, 7, 3, 3), np.float32)], tmp_path)
    assert "export.int8" in error.value.hint
    assert "opset" not in error.value.hint  # it has one in which scales per channel are known
    older = convnet()
    older.opset_import[0].version = 12
    with pytest.raises(EngineError, match="cannot quantise") as error:
        quantise(older, [np.zeros((1, 7, 3, 3), np.float32)], tmp_path)
    assert "opset 13" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_agreement_finds_a_difference(images):
    model, other = convnet(seed=0), convnet(seed=1)
    assert agreement(model, model, [{"image": images[0]}]).max_relative_error == 0
    assert agreement(model, other, [{"image": images[0]}]).max_relative_error > 0.1


def test_the_example_makes_the_slim_torch_network_from_safetensors(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small().eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # equal vectors would be exported as one
            for vector in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                vector.uniform_(0.5, 1.5)
        elif isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and layer.bias is not None:
            layer.bias.data.normal_()
    model = exported(network)
    analysis = analyze(model)
    pruned = prune(analysis, allocate(analysis, score(analysis, "l2"), [macs_limit(analysis, 0.4)], round_to=1).plan)
    onnx.save(pruned, tmp_path / "pruned.onnx")
    count = save_state_dict(model, pruned, "mobilenet_v3_small", tmp_path / "pruned.safetensors")
    assert count == sum("num_batches_tracked" not in name for name in network.state_dict())
    command = [sys.executable, LOADER, tmp_path / "pruned.safetensors", tmp_path / "pruned.onnx"]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "relative difference" in run.stdout
    assert run.stderr == ""  # neither torch nor ONNX Runtime warns of what the example or the file does


def test_widths_that_the_architecture_cannot_compute_with_are_refused(tmp_path):
    """ShuffleNet halves the channels, whichever of them are left; ResNet takes them as they are."""
    for name, fits in (("resnet18", True), ("shufflenet_v2_x0_5", False)):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None).eval()
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.02)  # equal vectors would be exported as one
        model = exported(network)
        analysis = analyze(model)
        pruned = prune(analysis, allocate(analysis, score(analysis, "l2"), [macs_limit(analysis, 0.5)]).plan)
        path = tmp_path / f"{name}.safetensors"
        save_state_dict(model, pruned, name, path)
        if fits:
            check_slim_network(pruned, name, path)
            continue
        with pytest.raises(EngineError, match=f"torchvision's {name} does not compute with these widths"):
            check_slim_network(pruned, name, path)


def test_the_slim_torch_network_has_no_heads_that_only_training_uses(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)
    save_file(network.state_dict(), tmp_path / "w.safetensors", metadata={"architecture": "googlenet"})
    run = subprocess.run(
        [sys.executable, LOADER, tmp_path / "w.safetensors"], check=False, capture_output=True, text=True
    )
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in run.stdout, run.stderr


def test_weights_without_a_place_in_the_state_dict_are_refused(tmp_path):
    original, pruned = convnet(), convnet()
    pruned.graph.initializer[0].name = "conv0.weight_copy"
    with pytest.raises(EngineError, match=r"no place of their own in resnet18's state dict \(conv0.weight, "):
        save_state_dict(original, pruned, "resnet18", tmp_path / "x.safetensors")


def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    model = convnet()
    with largest_file(1000), pytest.raises(OSError, match="too large") as error:
        save_state_dict(model, model, "resnet18", tmp_path / "x.safetensors")
    assert error.value.errno == errno.EFBIG
