"""Fidelity of outputs with a row per image, and of those that have none."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from worker.engine.data import Split
from worker.engine.measure import fidelity

ONE, ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)


def split_of(values):
    """Images (N, 1, 1, K) that carry the values themselves."""
    rows = np.arange(len(values))
    return Split(values[:, None, None, :], rows, np.zeros_like(rows), ONE, ZERO, "NHWC")


def saved(path: Path, nodes, weights, batch="n"):
    """A model of images (N, 1, 1, 3) with the one output y."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 1, 3])
    stored = [numpy_helper.from_array(np.asarray(number, np.float32), name) for name, number in weights.items()]
    graph = helper.make_graph(nodes, "g", [value], [onnx.ValueInfoProto(name="y")], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def listing(path: Path, above: float):
    """One row for each value above a bound, however many there are."""
    nodes = [
        helper.make_node("Greater", ["x", "bound"], ["found"]),
        helper.make_node("NonZero", ["found"], ["where"]),
        helper.make_node("Transpose", ["where"], ["rows"]),
        helper.make_node("Cast", ["rows"], ["y"], to=TensorProto.FLOAT),
    ]
    return saved(path, nodes, {"bound": above})


def scaled(path: Path, factor: float, batch="n"):
    return saved(path, [helper.make_node("Mul", ["x", "factor"], ["y"])], {"factor": factor}, batch)


@pytest.fixture
def values():
    return np.random.default_rng(0).random((5, 3)).astype(np.float32)


def test_lists_of_different_lengths_are_not_compared(tmp_path, values):
    found = fidelity(listing(tmp_path / "a.onnx", 0.1), listing(tmp_path / "b.onnx", 0.7), split_of(values))
    assert len(values) < (values > 0.7).sum() < (values > 0.1).sum()
    assert [output.error for output in found.outputs] == [None]
    assert found.samples == len(values)


def test_a_list_longer_than_the_batch_is_compared_to_its_end(tmp_path, values):
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=0),
        helper.make_node("Transpose", ["flat"], ["rows"]),
        helper.make_node("Mul", ["rows", "factors"], ["y"]),
    ]
    same, other = np.ones((15, 1)), np.ones((15, 1))
    other[len(values) :] = 2
    paths = [saved(tmp_path / f"{i}.onnx", nodes, {"factors": each}) for i, each in enumerate((same, other))]
    expected = np.square(values.ravel()[len(values) :]).sum() / values.size / values.var()
    assert fidelity(*paths, split_of(values)).error == pytest.approx(expected**0.5, rel=1e-5)


def test_a_single_number_is_compared(tmp_path, values):
    paths = [
        saved(tmp_path / f"{op}.onnx", [helper.make_node(op, ["x"], ["y"], keepdims=0)], {})
        for op in ("ReduceMean", "ReduceMax")
    ]
    found = fidelity(*paths, split_of(values))
    assert found.error == pytest.approx(values.max() / values.mean() - 1, rel=1e-5)


def test_what_fills_up_a_fixed_batch_does_not_count(tmp_path, values):
    """Five images for a batch of four: the second run has one image four times."""
    values[-1] = 100
    open_ended = fidelity(scaled(tmp_path / "a.onnx", 1), scaled(tmp_path / "b.onnx", 1.1), split_of(values))
    fixed = fidelity(scaled(tmp_path / "a4.onnx", 1, 4), scaled(tmp_path / "b4.onnx", 1.1, 4), split_of(values))
    assert open_ended.error is not None
    assert fixed.error == pytest.approx(open_ended.error)
