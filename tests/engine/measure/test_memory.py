"""Peak memory follows weights and activations, and is that of fresh processes whatever this one holds."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from worker.engine.measure import peak_memory
from worker.engine.measure.memory import ROUNDS

MB = 1e6


def saved(path: Path, nodes, inputs, weights) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def weighty(path: Path, megabytes: int) -> Path:
    weight = np.random.default_rng(0).standard_normal((1000, megabytes * 250))
    return saved(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [1, 1000], {"w": weight})


def wide(path: Path, megabytes: int) -> Path:
    """A value of that many megabytes between two small ones."""
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["large"]),
        helper.make_node("Sin", ["large"], ["also"]),
        helper.make_node("ReduceMax", ["also"], ["y"], keepdims=0),
    ]
    path = saved(path, nodes, [1, 1], {})
    model = onnx.load(path)
    shape = np.array([1000, megabytes * 250], np.int64)
    model.graph.initializer.append(numpy_helper.from_array(shape, "shape"))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("make", "copies"), [(weighty, 4), (wide, 3)])
def test_it_follows_weights_and_values(tmp_path, make, copies):
    measured = peak_memory(make(tmp_path / "large.onnx", 40), make(tmp_path / "small.onnx", 10))
    assert measured is not None
    large, small = measured
    assert 40 * MB <= large <= 40 * MB * copies + 20 * MB
    assert 10 * MB <= small <= 10 * MB * copies + 20 * MB
    assert large - small >= 30 * MB


def test_what_this_process_held_and_holds_counts_for_nothing(tmp_path):
    path = weighty(tmp_path / "model.onnx", 10)
    alone = peak_memory(path, path)
    held = np.ones(20_000_000)
    small = [bytes(50_000) for _ in range(2000)]
    del small
    beside = peak_memory(path, path)
    assert alone is not None
    assert beside is not None
    assert held.sum() == 20_000_000
    np.testing.assert_allclose(beside, alone, rtol=0.15)
    assert abs(alone[0] - alone[1]) < 0.1 * alone[0]


def test_a_model_that_does_not_run_has_none(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    sound = weighty(tmp_path / "model.onnx", 1)
    broken = saved(tmp_path / "broken.onnx", nodes, [1, 6], {})
    model = onnx.load(broken)
    model.graph.initializer.append(numpy_helper.from_array(np.array([4], np.int64), "shape"))
    onnx.save(model, broken)
    assert ROUNDS >= 1
    assert peak_memory(sound, broken) is None
