"""Of several outputs all that a job does takes the same one for the class scores."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.criteria import Calibration, score
from worker.engine.data import Dataset
from worker.engine.data.dataset import Split
from worker.engine.errors import EngineError
from worker.engine.export.int8 import quantise
from worker.engine.graph import analyze
from worker.engine.masks.scoring import score_variants
from worker.engine.measure import evaluate, find_head, possible_heads
from worker.engine.probe import Objective, Probe, some_images
from worker.engine.recovery import FinetuneOptions
from worker.engine.recovery.objective import objective_of
from worker.engine.surgery import Plan
from worker.engine.torch_form import build
from worker.engine.torch_form.loss import LossForm

CLASSES = 4


def network(embedding: int | None) -> onnx.ModelProto:
    """An embedding of so many numbers, if any, and behind it probabilities."""
    g = GraphBuilder(seed=1)
    features = g.node("Flatten", g.node("GlobalAveragePool", g.node("Relu", g.conv(g.input(("n", 3, 8, 8)), 3, 16))))
    scores = g.node("Softmax", g.gemm(features, 16, CLASSES), axis=1)
    outputs = [] if embedding is None else [g.gemm(features, 16, embedding)]
    return g.model(*outputs, scores)


def images_of(model: onnx.ModelProto) -> Dataset:
    """Images whose labels are the classifier's own answers."""
    rng = np.random.default_rng(0)
    images = (rng.normal(0, 4, (60, 1, 1, 3)) + rng.random((60, 8, 8, 3))).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    labels = session.run(None, {model.graph.input[0].name: images.transpose(0, 3, 1, 2)})[-1].argmax(1)
    assert len(set(labels)) > 1

    def split(rows: np.ndarray) -> Split:
        plain = np.ones(3, np.float32), np.zeros(3, np.float32)
        return Split(images, rows, labels[rows].astype(np.int64), *plain, "NCHW")

    return Dataset(("a", "b", "c", "d"), *(split(rows) for rows in np.split(np.arange(60), 3)))


@pytest.mark.parametrize("embedding", [64, CLASSES, CLASSES - 1])
def test_a_classifier_with_an_embedding_before_its_scores(embedding: int, tmp_path) -> None:
    model = network(embedding)
    dataset, analysis = images_of(model), analyze(model)
    head = find_head(model, CLASSES)
    assert (head.index, head.activation) == (1, "softmax")
    assert evaluate(model, dataset.test, CLASSES).top1 == 1
    assert score_variants([[lambda: model]], dataset.validation, CLASSES)[0].wrong == 0
    assert Probe(analysis, some_images(analysis, dataset.validation, 20, CLASSES)).original().top1 == 1
    assert Objective(analysis, dataset, images=20, calibration_images=2)(Plan({})).top1 == 1
    student, options = build(model), FinetuneOptions(distillation=1.0, device="cpu")
    objective = objective_of(student, dataset, options, torch.device("cpu"), build(model))
    assert objective.values == (head.logits, model.graph.output[0].name)
    images, labels = (torch.from_numpy(each) for each in next(dataset.train.batches(10)))
    with torch.no_grad():
        outputs = student.up_to(*objective.values)(images)
        assert objective.loss(outputs, images, labels).item() == pytest.approx(0, abs=1e-5)
    small = quantise(model, (images for images, _ in dataset.train.batches(10)), tmp_path)
    assert find_head(small, CLASSES).name == head.name


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_criteria_differentiate_the_loss_of_the_class_scores(criterion: str) -> None:
    """Another output without labels changes nothing in the scores."""
    model, alone = network(64), network(None)
    dataset = images_of(alone)
    images, labels = next(dataset.train.batches(20))
    calibration = Calibration(images, labels, CLASSES)
    found, expected = (score(analyze(m), criterion, calibration=calibration) for m in (model, alone))
    assert found.keys() == expected.keys()
    for group in found:
        np.testing.assert_allclose(found[group], expected[group], rtol=1e-5)


def heads(*outputs: tuple[list[int | str] | None, str]) -> onnx.ModelProto:
    """Outputs o0, o1, ... of these shapes, each of its own input by one op."""
    values = [helper.make_tensor_value_info(f"o{n}", TensorProto.FLOAT, shape) for n, (shape, _) in enumerate(outputs)]
    nodes = [helper.make_node(op, [f"x{n}"], [f"o{n}"]) for n, (_, op) in enumerate(outputs)]
    inputs = [helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, shape) for n, (shape, _) in enumerate(outputs)]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, values))


@pytest.mark.parametrize(
    ("outputs", "classes", "expected"),
    [
        ([(["n", 4], "Relu"), (["n", 4], "Softmax")], 4, ["o1"]),
        ([(["n", 64], "Softmax"), (["n", 4], "LogSoftmax")], 4, ["o1"]),
        ([(["n", 64], "Softmax"), (["n", 4], "Relu")], 4, ["o1"]),
        ([(["n", 64], "Relu"), (["n", 5], "Sigmoid")], 4, ["o1"]),
        ([(["n", 64], "Relu"), (["n", 5], "Relu")], 4, ["o0", "o1"]),
        ([(["n", 64], "Relu"), (["n", "k"], "Softmax")], 4, ["o1"]),
        ([(["n", 64], "Relu"), (None, "Softmax")], 4, ["o1"]),
        ([(["n", 64], "Relu"), (["n", 1], "Sigmoid")], 2, ["o1"]),
        ([(["n", 2], "Relu"), (["n", 1], "Sigmoid")], 2, ["o1"]),
        ([(["n", 1], "Sigmoid"), (["n", 4], "Relu")], 4, ["o1"]),
        ([(["n", 2], "Relu"), (["n"], "Sigmoid")], 2, ["o0"]),
        ([(["n"], "Sigmoid"), (["n", 2], "Softmax")], 2, ["o1"]),
        ([(["n", 64], "Softmax"), (["n"], "Sigmoid")], 2, ["o1"]),
        ([(["n"], "Relu"), (["n", 2], "Relu")], 2, ["o1"]),
        ([(["n"], "Sigmoid"), (["n", 4], "Relu")], 4, ["o1"]),
        ([(["n"], "Relu")], 2, ["o0"]),
        ([(["n", 4, 1, 1], "Softmax"), (["n", 64], "Relu")], 4, ["o1"]),
        ([(["n", 4, 1, 1], "Softmax"), (["n", 3, 1, 1], "Softmax")], 3, ["o0"]),
        ([(["n", 64], "Relu"), (["n", 4], "Softmax")], None, ["o1"]),
        ([(["n", 4], "Softmax"), (["n", 64], "Relu"), (["n", 4], "Softmax")], 4, ["o0", "o2"]),
        ([(["n", 64], "Relu")], 4, ["o0"]),
    ],
)
def test_which_outputs_may_be_the_class_scores(
    outputs: list[tuple[list[int | str] | None, str]], classes: int | None, expected: list[str]
) -> None:
    assert [head.name for head in possible_heads(heads(*outputs), classes)] == expected


def test_scores_that_come_out_twice_are_no_choice() -> None:
    g = GraphBuilder(17)
    scores = g.gemm(g.input(("n", 8)), 8, 4)
    model = g.model(g.node("Softmax", scores), g.node("LogSoftmax", scores), scores)
    assert [head.index for head in possible_heads(model, 4)] == [0]


def one_score(activation: str | None, middle: float, *, column: bool = True) -> onnx.ModelProto:
    """A number less `middle`, and perhaps an activation: (N, 1), or (N,) as `squeeze(1)` leaves it."""
    g = GraphBuilder(seed=1)
    features = g.node("Flatten", g.node("GlobalAveragePool", g.node("Relu", g.conv(g.input(("n", 3, 8, 8)), 3, 16))))
    logit = g.node("Gemm", features, g.weight(1, 16), g.constant(np.array([-middle], np.float32)), transB=1)
    if not column:
        logit = g.node("Squeeze", logit, g.constant([1]))
    return g.model(g.node(activation, logit) if activation else logit)


def answers(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {model.graph.input[0].name: images.transpose(0, 3, 1, 2)})
    return np.asarray(found).reshape(len(images))


@pytest.mark.parametrize("column", [True, False], ids=["(N, 1)", "(N,)"])
@pytest.mark.parametrize("activation", ["Sigmoid", None])
def test_one_score_stands_for_two_classes(activation: str | None, column: bool, tmp_path) -> None:
    """A probability or its logit, in all that a job does, and in the file in eight bits."""
    rng = np.random.default_rng(0)
    images = (rng.normal(0, 4, (60, 1, 1, 3)) + rng.random((60, 8, 8, 3))).astype(np.float32)
    logits = answers(one_score(None, 0.0), images)
    middle = float(np.median(logits))
    model, logits = one_score(activation, middle, column=column), logits - middle
    labels = (logits > 0).astype(np.int64)
    plain = np.ones(3, np.float32), np.zeros(3, np.float32)
    rows = np.split(np.arange(60), 3)
    dataset = Dataset(("a", "b"), *(Split(images, part, labels[part], *plain, "NCHW") for part in rows))

    due = np.logaddexp(0, np.where(labels == 1, -1, 1) * logits)
    found = evaluate(model, dataset.test, 2)
    assert found.top1 == 1
    assert found.loss == pytest.approx(due[rows[2]].mean(), rel=1e-4)
    assert score_variants([[lambda: model]], dataset.validation, 2)[0].wrong == 0
    assert Objective(analyze(model), dataset, images=20, calibration_images=2)(Plan({})).top1 == 1
    analysis, (some, truth) = analyze(model), next(dataset.validation.batches(20))
    assert Probe(analysis, some_images(analysis, dataset.validation, 20, 2)).original().top1 == 1
    ((found_losses, _, _),) = LossForm(model, classes=2).batches(some, truth, 20)
    np.testing.assert_allclose(found_losses.detach(), due[rows[1]], rtol=1e-4)
    for share in (0.0, 1.0):
        student = build(model)
        objective = objective_of(
            student, dataset, FinetuneOptions(distillation=share), torch.device("cpu"), build(model)
        )
        batch, truth = (torch.from_numpy(each) for each in next(dataset.validation.batches(20)))
        outputs = student.up_to(*objective.values)(batch)
        loss, right = objective.judge(outputs, batch, truth)
        assert (loss.item(), right) == (pytest.approx(due[rows[1]].mean(), rel=1e-4), 20)
        trained = objective.loss(outputs, batch, truth).item()
        assert trained == pytest.approx(0 if share else due[rows[1]].mean(), rel=1e-4, abs=1e-5)
    small = quantise(model, (images for images, _ in dataset.train.batches(10)), tmp_path)
    assert find_head(small, 2).activation == ("sigmoid" if activation else "none")
    assert evaluate(small, dataset.test, 2).top1 > 0.8


@pytest.mark.parametrize("activation", ["HardSigmoid", "Tanh", "ReduceMax"])
def test_one_score_that_may_be_a_probability_is_not_taken_for_a_logit(activation: str) -> None:
    head = find_head(one_score(activation, 0.0), 2)
    with pytest.raises(EngineError, match="may be a probability or its logit"):
        head.scores(np.full((4, 1), 0.3, np.float32), 2, 4)


@pytest.mark.parametrize("output", [np.zeros(4, np.int64), np.zeros(8, np.float32), np.zeros((4, 2, 3), np.float32)])
def test_what_is_no_score_per_image_is_told(output: np.ndarray) -> None:
    """The numbers of classes, what two images have for four, and maps of scores."""
    with pytest.raises(EngineError) as caught:
        find_head(one_score(None, 0.0), 2).scores(output, 2, 4)
    assert caught.value.code == "not_a_classifier"
