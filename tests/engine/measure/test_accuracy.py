"""Accuracy against figures computed by hand, and which output is a classifier's."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from worker.engine.data import Split
from worker.engine.errors import EngineError
from worker.engine.measure import evaluate, fidelity, find_head

ONE, ZERO = np.ones(1, np.float32), np.zeros(1, np.float32)


def scores(n=200, classes=7):
    return np.random.default_rng(0).standard_normal((n, classes)).astype(np.float32)


def split_of(values, labels):
    """Images (N, 1, 1, K) that carry the scores themselves."""
    return Split(values[:, None, None, :], np.arange(len(values)), labels, ONE, ZERO, "NHWC")


def scoring_model(classes, *tail, batch="n"):
    """A model that returns its input (N, 1, 1, K) as (N, K), through some last ops."""
    nodes, name = [helper.make_node("Flatten", ["x"], ["v0"])], "v0"
    for index, (op, attributes) in enumerate(tail, 1):
        nodes.append(helper.make_node(op, [name], [f"v{index}"], **attributes))
        name = f"v{index}"
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 1, classes])
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, classes])
    graph = helper.make_graph(nodes, "g", [value], [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


SOFTMAX, LOG_SOFTMAX, SIGMOID = ("Softmax", {}), ("LogSoftmax", {}), ("Sigmoid", {})


@pytest.mark.parametrize("tail", [[], [SOFTMAX], [LOG_SOFTMAX], [SOFTMAX, ("Identity", {})]])
@pytest.mark.parametrize("batch", ["n", 1, 64])
def test_figures(tail, batch):
    values, labels = scores(), np.arange(200) % 7
    found = evaluate(scoring_model(7, *tail, batch=batch), split_of(values, labels), 7)
    ranks = (values > values[np.arange(200), labels][:, None]).sum(1)
    assert found.samples == 200
    assert found.top1 == pytest.approx((ranks == 0).mean())
    assert found.top5 == pytest.approx((ranks < 5).mean())
    exact = np.log(np.exp(values.astype(np.float64)).sum(1)) - values[np.arange(200), labels]
    assert found.loss == pytest.approx(exact.mean(), rel=1e-5)
    np.testing.assert_array_equal(found.predictions, values.argmax(1))


def test_a_file_is_measured_as_it_is_read(tmp_path):
    """Its batch is declared as 0, as converters from MXNet do, by which ONNX Runtime takes no images at all."""
    model, path = scoring_model(7), tmp_path / "model.onnx"
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 0
    onnx.save(model, path)
    values, labels = scores(), np.arange(200) % 7
    np.testing.assert_array_equal(evaluate(path, split_of(values, labels), 7).predictions, values.argmax(1))
    assert fidelity(path, path, split_of(values, labels)).error == 0


def test_five_classes_have_no_top5():
    assert evaluate(scoring_model(5), split_of(scores(classes=5), np.arange(200) % 5), 5).top5 is None


def test_one_probability_for_two_classes():
    values, labels = scores(classes=1), np.arange(200) % 2
    found = evaluate(scoring_model(1, SIGMOID), split_of(values, labels), 2)
    np.testing.assert_array_equal(found.predictions, values[:, 0] > 0)
    probability = 1 / (1 + np.exp(-values[:, 0].astype(np.float64)))
    exact = -np.log(np.where(labels == 1, probability, 1 - probability)).mean()
    assert found.loss == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("count", [64, 65, 66])
def test_one_image_left_over_whose_score_has_no_axis_at_all(count):
    """Squeeze without axes makes () of (1, 1)."""
    values, labels = scores(count, classes=1), np.arange(count) % 2
    found = evaluate(scoring_model(1, ("Squeeze", {})), split_of(values, labels), 2)
    np.testing.assert_array_equal(found.predictions, values[:, 0] > 0)


def test_independent_probabilities():
    values, labels = scores(), np.arange(200) % 7
    found = evaluate(scoring_model(7, SIGMOID), split_of(values, labels), 7)
    probability, truth = 1 / (1 + np.exp(-values.astype(np.float64))), np.eye(7)[labels]
    exact = -(truth * np.log(probability) + (1 - truth) * np.log(1 - probability)).mean()
    assert found.loss == pytest.approx(exact, rel=1e-5)


def test_certainty_gives_a_finite_loss():
    values = np.where(np.eye(7, dtype=np.float32)[np.arange(14) % 7] > 0, 1e4, -1e4).astype(np.float32)
    found = evaluate(scoring_model(7, SOFTMAX), split_of(values, np.arange(1, 15) % 7), 7)
    assert found.top1 == 0
    assert 50 < found.loss < 100


@pytest.mark.parametrize("worst", [-np.inf, np.inf, np.nan])
def test_scores_that_are_not_finite_give_a_finite_loss(worst):
    values, labels = scores(), np.arange(200) % 7
    finite = evaluate(scoring_model(7), split_of(values, labels), 7).loss
    values[3, labels[3]] = worst
    found = evaluate(scoring_model(7), split_of(values, labels), 7)
    assert finite < found.loss < finite + 100 / 200


def test_the_logarithm_of_a_vanished_probability_gives_a_finite_loss():
    values = np.where(np.eye(7, dtype=np.float32)[np.arange(14) % 7] > 0, 1e4, -1e4).astype(np.float32)
    found = evaluate(scoring_model(7, SOFTMAX, ("Log", {})), split_of(values, np.arange(1, 15) % 7), 7)
    assert found.top1 == 0
    assert 50 < found.loss < 100


def test_progress_ends_at_one():
    fractions = []
    evaluate(scoring_model(7), split_of(scores(), np.arange(200) % 7), 7, on_progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_too_few_scores_and_other_shapes_are_told():
    with pytest.raises(EngineError) as caught:
        evaluate(scoring_model(7), split_of(scores(), np.arange(200) % 7), 8)
    assert caught.value.code == "too_many_classes"
    with pytest.raises(EngineError) as caught:
        evaluate(
            scoring_model(7, ("Identity", {}), batch="n"), split_of(np.zeros((4, 9), np.float32), np.zeros(4, int)), 7
        )
    assert caught.value.code == "not_runnable"


def test_the_head_is_the_output_of_rank_two():
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])
    nodes = [
        helper.make_node("Relu", ["x"], ["features"]),
        helper.make_node("Flatten", ["features"], ["flat"]),
        helper.make_node("Softmax", ["flat"], ["soft"]),
        helper.make_node("Identity", ["soft"], ["probabilities"]),
    ]
    outputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3, 4, 4]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 48]),
    ]
    head = find_head(helper.make_model(helper.make_graph(nodes, "g", [value], outputs)))
    assert (head.index, head.name, head.activation, head.logits) == (1, "probabilities", "softmax", "flat")
