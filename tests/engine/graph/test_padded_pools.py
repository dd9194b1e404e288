"""ONNX Runtime folds zeros around a MaxPool into its padding, which counts as minus infinity."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.engine.graph.cuts import half
from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.export.half_precision import to_half_precision
from worker.engine.graph import analyze, load_model
from worker.engine.graph.padded_pools import kept_apart
from worker.engine.proof import prove
from worker.engine.surgery import prune
from worker.runner.inspection import describe
from worker.runner.torch_model import checked_form

LEVELS = onnxruntime.GraphOptimizationLevel


def pooled(opset: int, activation: str = "LeakyRelu") -> onnx.ModelProto:
    """As tiny YOLO is exported: zeros on two sides, then a MaxPool of stride 1."""
    g = GraphBuilder(opset, seed=1)
    x = g.node(activation, g.conv(g.input((1, 3, 10, 10)), 3, 8))
    if opset < 11:
        x = g.node("Pad", x, pads=[0, 0, 0, 0, 0, 0, 1, 1])
    else:
        x = g.node("Pad", x, g.constant(np.array([0, 0, 0, 0, 0, 0, 1, 1])))
    x = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[1, 1])
    return g.model(g.conv(x, 8, 4))


def read(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    onnx.save(model, folder / "model.onnx")
    return load_model(folder / "model.onnx")


def run(model: onnx.ModelProto, level: LEVELS = LEVELS.ORT_ENABLE_ALL) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(3).standard_normal((1, 3, 10, 10), dtype=np.float32)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0], dtype=np.float32)


@pytest.mark.parametrize("opset", [9, 11, 13, 18, 21])
def test_a_model_means_what_the_standard_says(opset: int, tmp_path: Path):
    model = pooled(opset)
    standard = run(model, LEVELS.ORT_DISABLE_ALL)
    read_back = read(model, tmp_path)
    np.testing.assert_allclose(run(read_back), standard, atol=1e-5)
    (warning,) = describe(read_back, analyze(read_back), size_bytes=1).warnings
    assert "Pad" in warning
    assert read(read_back, tmp_path) == read_back


@pytest.mark.parametrize("opset", [9, 13])
def test_the_cut_and_trained_model_does_so_too(opset: int, tmp_path: Path):
    model = read(pooled(opset), tmp_path)
    analysis = analyze(model)
    plan = half(analysis, 0)
    cut = prune(analysis, plan)
    assert prove(analysis, plan, cut).passed
    trained = checked_form(cut, 0)[0].write_back()
    np.testing.assert_allclose(run(trained), run(trained, LEVELS.ORT_DISABLE_ALL), atol=1e-5)


def test_so_does_its_float16_file(tmp_path: Path):
    model = to_half_precision(read(pooled(13), tmp_path))
    np.testing.assert_allclose(run(model), run(pooled(13), LEVELS.ORT_DISABLE_ALL), atol=2e-2)


def test_what_is_folded_rightly_stays_as_it_is(tmp_path: Path):
    model = pooled(13, "Relu")
    assert read(model, tmp_path) == model
    assert kept_apart(model) == ()
