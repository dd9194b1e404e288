"""Latency rows: what they hold, and their arithmetic on times that are given."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from worker.engine.measure import latency, machine, speed
from worker.engine.measure.speed import summary


def convolution(channels, batch="n"):
    weight = np.ones((channels, 3, 3, 3), np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 64, 64])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, channels, 64, 64])
    graph = helper.make_graph(nodes, "g", [value], [output], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_rows_and_their_order():
    fractions = []
    rows = latency(convolution(128), convolution(2), (1, 3), rounds=5, on_progress=fractions.append)
    assert [(row.batch_size, row.threads, row.rounds) for row in rows] == [(1, 1, 5), (3, 1, 5)]
    assert fractions == [0.5, 1.0]
    for row in rows:
        assert row.speedup_low <= row.speedup <= row.speedup_high
        assert 0 < row.pruned.p50_ms <= row.pruned.p90_ms <= row.pruned.p99_ms
        assert row.noise >= 0


def test_the_models_take_turns_and_who_begins_takes_turns_too(monkeypatch):
    """Both run as often in a turn as it takes the faster one to fill it."""
    ran = []

    def run(session, inputs):
        channels = session.get_outputs()[0].shape[1]
        ran.append(channels)
        return {2: 0.004, 3: 0.02}[channels]

    monkeypatch.setattr(speed, "_seconds", run)
    (row,) = latency(convolution(2), convolution(3), rounds=4)
    assert ran[-24:] == [2] * 3 + [3] * 6 + [2] * 6 + [3] * 6 + [2] * 3
    assert (row.original.p50_ms, row.pruned.p50_ms) == pytest.approx((4, 20))


def test_the_arithmetic_of_a_row():
    """Ten rounds of two runs: the original takes 2 ms and 4 ms in turn, the pruned model always 1 ms."""
    original = np.tile([[0.002], [0.004]], (5, 2))
    row = summary(4, 1, original, np.full((10, 2), 0.001))
    assert (row.batch_size, row.threads, row.rounds) == (4, 1, 10)
    assert (row.original.p50_ms, row.pruned.p50_ms, row.pruned.p99_ms) == (3.0, 1.0, 1.0)
    assert (row.speedup, row.speedup_low, row.speedup_high) == (3.0, 2.0, 4.0)
    assert row.noise == pytest.approx(1 / 3)


def test_a_fixed_batch_size_is_measured_once():
    rows = latency(convolution(2, batch=2), convolution(2, batch=2), (1, 8), rounds=3)
    assert [row.batch_size for row in rows] == [2]


def test_the_machine():
    found = machine()
    assert found.cpu
    assert found.cores >= 1
    assert found.memory_bytes > 2**28
    assert found.versions.keys() >= {"python", "torch", "onnx", "onnxruntime", "numpy"}


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_recorded(threads):
    (row,) = latency(convolution(2), convolution(2), rounds=3, threads=threads)
    assert row.threads == threads
