"""Inputs as networks declare them: with and without a batch axis."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from tests.engine.graph.cuts import assert_correct, cut, run
from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.data import InputSpec
from worker.engine.export import agreement, to_half_precision
from worker.engine.graph import analyze, load_model, sample_inputs
from worker.engine.measure.speed import latency


def network(shape, *, opset=17, axis=0, unbatched=False, layout="CHW") -> ModelProto:
    g = GraphBuilder(opset)
    x = g.node("Div", g.input(shape), g.constant(np.array(0.5, np.float32)))
    if layout == "HWC":
        x = g.transpose(x, 2, 0, 1)
    if unbatched:
        x = g.node("Unsqueeze", x, g.ints(axis)) if opset >= 13 else g.node("Unsqueeze", x, axes=[axis])
    x = g.node("Relu", g.conv(x, 3, 8))
    return g.model(g.node("GlobalAveragePool", g.conv(x, 8, 4)))


@pytest.mark.parametrize(
    ("shape", "opset", "axis", "layout"),
    [
        ((3, 8, 8), 17, 0, "CHW"),
        ((3, 8, 8), 17, -4, "CHW"),
        ((3, 8, 8), 11, 0, "CHW"),
        ((8, 8, 3), 17, 0, "HWC"),
    ],
)
def test_a_single_image_without_a_batch_axis_counts_once(shape, opset, axis, layout):
    single = network(shape, opset=opset, axis=axis, unbatched=True, layout=layout)
    batched = analyze(network((1, 3, 8, 8)))
    assert analyze(single).macs == batched.macs > 0
    done = cut(single)
    assert_correct(done)
    assert len(run(done.pruned)[0]) == 1


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_its_dynamic_height_and_width_are_no_batch(layout):
    shape = (3, "height", "width") if layout == "CHW" else ("height", "width", 3)
    model = network(shape, unbatched=True, layout=layout)
    (image,) = sample_inputs(model, batch=5).values()
    assert image.shape == ((3, 64, 64) if layout == "CHW" else (64, 64, 3))
    assert analyze(model).macs == analyze(network((1, 3, 64, 64))).macs


def test_a_sound_of_several_samples_keeps_its_batch():
    g = GraphBuilder(17)
    model = g.model(g.node("Relu", g.node("Conv", g.input((4, 3, 16)), g.weight(8, 3, 3))))
    assert analyze(model).macs == 14 * 8 * 3 * 3


def test_its_latency_is_one_image_s():
    model = network((8, 8, 3), unbatched=True, layout="HWC")
    assert [row.batch_size for row in latency(model, model, (1, 8), rounds=2)] == [1]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("group", "given", "shape"),
    [(1, 1, ("n", "c", "h", "w")), (2, 4, (None, None, None, None)), (1, 5, ("n", "c", "l"))],
)
def test_channels_that_are_not_declared_are_those_that_a_convolution_reads(group, given, shape, scaled: bool):
    g, rank = GraphBuilder(17), len(shape) - 2
    x = g.input(shape)
    x = g.node("Sub", x, g.constant(0.5)) if scaled else x
    x = g.node("Relu", g.conv(x, given, 8, rank=rank, group=group))
    model = g.model(g.conv(x, 8, 4, rank=rank))
    (image,) = sample_inputs(model).values()
    assert image.shape[1] == given
    assert_correct(cut(model))


def test_another_batch_is_that_of_every_dimension_of_its_name():
    """The states of recurrent layers have it second."""
    g = GraphBuilder()
    x, state = g.input(("batch", 5, 8), "x"), g.input((2, "batch", 8), "state")
    model = g.model(g.node("Add", g.transpose(x, 1, 0, 2), g.node("ReduceSum", state, g.ints(0))))
    assert {name: value.shape for name, value in sample_inputs(model, batch=3).items()} == {
        "x": (3, 5, 8),
        "state": (2, 3, 8),
    }


def test_sizes_declared_as_minus_one_are_any_sizes(tmp_path: Path):
    model = network((1, 3, 8, 8))
    for size in model.graph.input[0].type.tensor_type.shape.dim:
        size.dim_value = -1 if size.dim_value != 3 else 3
    onnx.save(model, tmp_path / "model.onnx")
    loaded = load_model(tmp_path / "model.onnx")
    spec = InputSpec.of(loaded)
    assert (spec.channels, spec.height, spec.width) == (3, None, None)
    done = cut(loaded)
    assert_correct(done)
    half = to_half_precision(done.pruned)
    inputs = [{"input_1": np.random.default_rng(0).random((2, 3, 9, 9), dtype=np.float32)}]
    assert agreement(done.pruned, half, inputs).max_relative_error < 0.01
