"""Finetuning: it learns, keeps the best epoch, is reproducible, and says what does not fit."""

import io
import math
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import coloured_squares, convnet
from worker.engine.data import DataOptions, InputSpec, open_dataset
from worker.engine.errors import EngineError
from worker.engine.measure import evaluate
from worker.engine.recovery import FinetuneOptions, finetune, needs_teacher
from worker.engine.recovery.arithmetic import BFLOAT16, CANDIDATES, FLOAT32, fastest
from worker.engine.recovery.layer_weights import decayed
from worker.engine.recovery.objective import objective_of
from worker.engine.torch_form import build

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
OPTIONS = FinetuneOptions(epochs=4, learning_rate=0.1, batch_size=32, device="cpu")


def stripes(count, classes):
    """Noisy stripes whose direction and phase tell the class, (N, 8, 8) uint8."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    rows, columns = np.mgrid[:8, :8]
    waves = np.stack([(rows if c % 2 else columns) // (1 + c // 2) % 2 for c in range(classes)])
    return (60 + 90 * waves[labels] + rng.integers(0, 60, (count, 8, 8))).astype(np.uint8), labels


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")

    def save(classes, count=400):
        path = folder / f"{classes}.npz"
        x, y = stripes(count, classes)
        np.savez(path, x=x, y=y)
        return path

    return {classes: save(classes) for classes in (2, 4)}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dataset_of(path, model):
    return open_dataset(path, InputSpec.of(model), DataOptions((0.5,), (0.25,)))


def network(outputs, *tail):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, outputs),
        *tail,
    )


def network_with_a_norm_of_pooled_values():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)
    )


def exported(module, batch="n"):
    file = io.BytesIO()
    torch.onnx.export(
        module.eval(),
        torch.zeros(1 if batch == 1 else 2, 1, 8, 8),
        file,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes=None if batch == 1 else {"x": {0: batch}, "y": {0: batch}},
    )
    return onnx.load_from_string(file.getvalue())


@pytest.mark.parametrize("tail", [[], [nn.Softmax(1)], [nn.LogSoftmax(1)], [nn.Sigmoid()]])
def test_learns_through_any_last_activation(uploads, tail):
    model = exported(network(4, *tail))
    dataset, form = dataset_of(uploads[4], model), build(model)
    before = evaluate(model, dataset.test, 4)
    training = finetune(form, dataset, OPTIONS)
    after = evaluate(form.write_back(), dataset.test, 4)
    assert after.top1 > 0.9 > before.top1
    assert after.loss < before.loss
    best = training.epochs[training.best_epoch]
    assert best.validation_top1 == max(row.validation_top1 for row in training.epochs)
    assert [row.epoch for row in training.epochs] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("tail", [[nn.Sigmoid()], [nn.Flatten(0)], [nn.Flatten(0), nn.Sigmoid()]])
def test_one_score_stands_for_two_classes(uploads, tail):
    """As (N, 1), and as (N,)."""
    model = exported(network(1, *tail))
    dataset, form = dataset_of(uploads[2], model), build(model)
    finetune(form, dataset, OPTIONS)
    assert evaluate(form.write_back(), dataset.test, 2).top1 > 0.95


class Squeeze(nn.Module):
    def forward(self, x):
        return x.squeeze()


def test_one_image_left_over_whose_score_has_no_axis_at_all(uploads):
    model = exported(network(1, Squeeze()))
    dataset, form = dataset_of(uploads[2], model), build(model)
    size = len(dataset.validation) - 1
    finetune(
        form, dataset, OPTIONS.model_copy(update={"batch_size": size, "distillation": "auto"}), teacher=build(model)
    )
    assert evaluate(form.write_back(), dataset.test, 2).top1 > 0.95


def test_a_model_exported_for_one_image_learns_in_batches(uploads):
    model = exported(network(4), batch=1)
    dataset, form = dataset_of(uploads[4], model), build(model)
    finetune(form, dataset, OPTIONS)
    assert evaluate(form.write_back(), dataset.test, 4).top1 > 0.9


def test_batches_of_one_image_are_all_learnt_from(uploads):
    model = exported(network(4))
    dataset, form = dataset_of(uploads[4], model), build(model)
    options = OPTIONS.model_copy(update={"epochs": 1, "batch_size": 1, "learning_rate": 0.003})
    (before, after) = finetune(form, dataset, options).epochs
    assert after.validation_top1 > 0.9 > before.validation_top1


def test_a_leftover_batch_of_one_image_is_passed_over(uploads):
    """Its norm would have a single value per channel."""
    model = exported(network_with_a_norm_of_pooled_values())
    dataset = dataset_of(uploads[4], model)
    assert len(dataset.train) % 7 == 1
    finetune(build(model), dataset, OPTIONS.model_copy(update={"epochs": 1, "batch_size": 7}))


def test_a_norm_that_needs_larger_batches_is_told(uploads):
    model = exported(network_with_a_norm_of_pooled_values())
    with pytest.raises(EngineError) as caught:
        finetune(build(model), dataset_of(uploads[4], model), OPTIONS.model_copy(update={"batch_size": 1}))
    assert caught.value.code == "batch_too_small"
    assert "batch_size" in caught.value.hint


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_same_seed_same_weights(uploads, optimizer):
    options = FinetuneOptions(epochs=2, optimizer=optimizer, crop_padding=1, horizontal_flip=True, device="cpu", seed=5)
    model = exported(network(4))
    dataset = dataset_of(uploads[4], model)
    runs = []
    for _ in range(2):
        form = build(model)
        finetune(form, dataset, options)
        runs.append(form.write_back().SerializeToString())
    assert runs[0] == runs[1]


def test_an_epoch_that_spoils_the_model_is_not_kept(uploads):
    """Trained well, then misled by wrong labels: epoch 0 wins, and its weights come back bit by bit."""
    model = exported(network(4))
    dataset, form = dataset_of(uploads[4], model), build(model)
    finetune(form, dataset, OPTIONS)
    good = form.write_back()
    form = build(good)
    wrong = replace(dataset, train=replace(dataset.train, labels=(dataset.train.labels + 1) % 4))
    training = finetune(form, wrong, OPTIONS)
    assert training.best_epoch == 0
    assert form.write_back().SerializeToString() == good.SerializeToString()


def test_no_epochs_measure_the_model_as_it_is(uploads):
    model = exported(network(4))
    form = build(model)
    training = finetune(form, dataset_of(uploads[4], model), FinetuneOptions(epochs=0, device="cpu"))
    assert (training.best_epoch, len(training.epochs)) == (0, 1)
    assert form.write_back().SerializeToString() == model.SerializeToString()


def test_callbacks_follow_the_training(uploads):
    model = exported(network(4))
    dataset, form = dataset_of(uploads[4], model), build(model)
    rows, fractions = [], []
    training = finetune(form, dataset, OPTIONS, on_epoch=rows.append, on_progress=fractions.append)
    assert tuple(rows) == training.epochs
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) == 4 * math.ceil(len(dataset.train) / OPTIONS.batch_size)
    rates = [row.learning_rate for row in training.epochs[1:]]
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)])
    assert (training.device, training.train_samples) == ("cpu", len(dataset.train))


def test_a_callback_can_stop_the_training(uploads):
    class Cancelled(Exception):
        pass

    def cancel(fraction):
        raise Cancelled

    model = exported(network(4))
    form = build(model)
    with pytest.raises(Cancelled):
        finetune(form, dataset_of(uploads[4], model), OPTIONS, on_progress=cancel)
    assert not form.module.training


def test_label_smoothing_and_mixed_precision_train_too(uploads):
    model = exported(network(4))
    dataset, form = dataset_of(uploads[4], model), build(model)
    options = FinetuneOptions(epochs=4, learning_rate=0.1, label_smoothing=0.1, precision="bfloat16", device="cpu")
    finetune(form, dataset, options)
    assert evaluate(form.write_back(), dataset.test, 4).top1 > 0.9


def test_mixed_precision_trains_in_bfloat16_and_validates_in_float32(uploads):
    model = exported(network(4))
    dataset, trained = dataset_of(uploads[4], model), {}
    for precision in ("float32", "bfloat16"):
        form = build(model)
        options = OPTIONS.model_copy(update={"epochs": 1, "learning_rate": 0.01, "precision": precision})
        first, last = finetune(form, dataset, options).epochs
        moved = torch.cat([value.detach().flatten() for value in form.module.parameters()])
        trained[precision] = first.validation_loss, last.validation_loss, moved
    (before, after, weights), (other_before, other_after, others) = trained.values()
    assert other_before == before
    assert other_after == pytest.approx(after, rel=0.05)
    assert 1e-5 < (others - weights).norm() / weights.norm() < 1e-2  # more than float32 rounds by


@pytest.mark.parametrize(("outputs", "tail"), [(4, []), (4, [nn.Sigmoid()]), (1, [nn.Sigmoid()])])
def test_the_losses_are_those_of_their_formulas(uploads, outputs, tail):
    """Of a smoothed truth, and of the softened scores of an original, times the temperature squared."""
    classes = max(outputs, 2)
    model, other = exported(network(outputs, *tail)), exported(network(outputs, *tail))
    dataset, teacher = dataset_of(uploads[classes], model), build(other)
    with torch.no_grad():
        for parameter in teacher.module.parameters():
            parameter.mul_(1.5)
    images, labels = (torch.from_numpy(each) for each in next(dataset.train.batches(20)))
    truth = torch.nn.functional.one_hot(labels, classes).double()
    truth = truth[:, 1:] if outputs == 1 else truth

    def logits(form):
        name = objective_of(form, dataset, FinetuneOptions(distillation=0.0), torch.device("cpu"), None).values
        with torch.no_grad():
            return form.up_to(*name).eval()(images)[0]

    def divergence(goal, scores):
        """Of the distribution of these scores from the goal, without the entropy of the goal: (N,)."""
        if not tail:
            return -(goal * scores.log_softmax(1)).sum(1)
        return -(goal * scores.sigmoid().log() + (1 - goal) * (-scores).sigmoid().log()).mean(1)

    student = build(model)
    ours, theirs = 8 * logits(student).double(), logits(teacher).double()  # as sure as one that has learnt
    smoothed = 0.8 * truth + 0.2 / classes
    soft = (theirs / 3).softmax(1) if not tail else (theirs / 3).sigmoid()
    distilled = 9 * (divergence(soft, ours / 3) - divergence(soft, theirs / 3))
    expected = (0.4 * divergence(smoothed, ours) + 0.6 * distilled).mean()
    options = FinetuneOptions(label_smoothing=0.2, distillation=0.6, temperature=3.0, device="cpu")
    objective = objective_of(student, dataset, options, torch.device("cpu"), teacher)
    found = objective.loss((ours.float(),), images, labels)
    assert distilled.mean() > 1e-3
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.fixture
def trials(monkeypatch):
    """What the trials of a test find, in their order: by a clock to which the others are twice as fast as float32,
    and channels last alone the fastest."""
    module, found = sys.modules[finetune.__module__], []
    seconds = dict(zip(CANDIDATES, (2.0, 0.9, 1.0), strict=True))

    def recorded(network, step, device, candidates):
        tried = []

        def noted(arithmetic):
            tried.append(arithmetic)
            step(arithmetic)

        found.append(fastest(network, noted, device, candidates, lambda: sum(seconds[each] for each in tried)))
        assert set(tried) == set(candidates)
        return found[-1]

    monkeypatch.setattr(module, "fastest", recorded)
    return found


def test_a_long_training_begins_with_a_trial_and_runs_in_what_it_finds(uploads, trials, monkeypatch):
    monkeypatch.setattr(sys.modules[finetune.__module__], "MIN_STEPS", 36)
    model = exported(network(4))
    dataset, form = dataset_of(uploads[4], model), build(model)
    assert OPTIONS.epochs * -(-len(dataset.train) // OPTIONS.batch_size) == 36
    training = finetune(form, dataset, OPTIONS)
    assert [training.arithmetic] == trials == [CANDIDATES[1]]
    assert all(parameter.is_contiguous() for parameter in form.module.parameters())
    assert evaluate(form.write_back(), dataset.test, 4).top1 > 0.9


def test_a_short_training_is_in_float32_without_a_trial(uploads, trials, monkeypatch):
    monkeypatch.setattr(sys.modules[finetune.__module__], "MIN_STEPS", 37)
    model = exported(network(4))
    training = finetune(build(model), dataset_of(uploads[4], model), OPTIONS)
    assert trials == []
    assert training.arithmetic == FLOAT32


def test_a_chosen_arithmetic_is_not_tried(uploads, trials, monkeypatch):
    monkeypatch.setattr(sys.modules[finetune.__module__], "MIN_STEPS", 1)
    model = exported(network(4))
    options = OPTIONS.model_copy(update={"epochs": 1, "precision": "bfloat16"})
    training = finetune(build(model), dataset_of(uploads[4], model), options)
    assert trials == []
    assert training.arithmetic == BFLOAT16


def test_fewer_scores_than_classes_are_told(uploads):
    model = exported(network(3))
    with pytest.raises(EngineError) as caught:
        finetune(build(model), dataset_of(uploads[4], model), OPTIONS)
    assert caught.value.code == "too_many_classes"
    assert "4 classes" in caught.value.message
    assert "3 scores" in caught.value.message


def test_more_scores_than_classes_are_fine(uploads):
    model = exported(network(7))
    training = finetune(build(model), dataset_of(uploads[4], model), FinetuneOptions(epochs=1, device="cpu"))
    assert len(training.epochs) == 2


def test_a_model_that_classifies_nothing_is_told(uploads):
    model = exported(nn.Conv2d(1, 4, 3, padding=1))
    with pytest.raises(EngineError) as caught:
        finetune(build(model), dataset_of(uploads[4], model), OPTIONS)
    assert caught.value.code == "not_a_classifier"


def test_divergence_is_told(uploads):
    model = exported(network(4))
    with pytest.raises(EngineError) as caught:
        finetune(build(model), dataset_of(uploads[4], model), OPTIONS.model_copy(update={"learning_rate": 1e30}))
    assert caught.value.code == "diverged"
    assert "learning rate" in caught.value.hint


def test_divergence_is_told_where_only_the_validation_shows_it(tmp_path):
    """Statistics of batches hide what the running averages have become."""
    model, path = convnet(width=8), tmp_path / "squares.npz"
    path.write_bytes(coloured_squares())
    mean = next(tensor for tensor in model.graph.initializer if tensor.name == "bn0.mean")
    mean.CopyFrom(numpy_helper.from_array(np.full(8, np.nan, np.float32), mean.name))
    with pytest.raises(EngineError) as caught:
        finetune(build(model), open_dataset(path, InputSpec.of(model)), OPTIONS)
    assert caught.value.code == "diverged"


def test_a_model_without_weights_is_told(uploads):
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
        helper.make_node("Concat", ["s", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])
    rest = numpy_helper.from_array(np.array([64], np.int64), "rest")
    graph = helper.make_graph(nodes, "g", [value], [output], [rest])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(EngineError) as caught:
        finetune(build(model), dataset_of(uploads[4], model), OPTIONS)
    assert caught.value.code == "nothing_to_train"


@pytest.mark.parametrize("tail", [[], [nn.Sigmoid()]])
def test_distillation_alone_learns_from_the_original_and_not_from_the_labels(uploads, tail):
    original = exported(network(4, *tail))
    dataset, teacher = dataset_of(uploads[4], original), build(original)
    finetune(teacher, dataset, OPTIONS)
    wrong = replace(dataset, train=replace(dataset.train, labels=np.roll(dataset.train.labels, 1)))
    student = build(original)
    finetune(
        student,
        wrong,
        OPTIONS.model_copy(update={"epochs": 8, "learning_rate": 0.03, "distillation": 1.0}),
        teacher=teacher,
    )
    assert evaluate(student.write_back(), dataset.test, 4).top1 > 0.9
    misled = build(original)
    training = finetune(misled, wrong, OPTIONS)
    assert max(row.validation_top1 for row in training.epochs) < 0.7


def test_left_to_itself_distillation_asks_the_original_only_where_it_is_right(uploads):
    """Its classes in another order, say: half of every image's loss would pull away from the labels."""
    original = exported(network(4))
    dataset, teacher = dataset_of(uploads[4], original), build(original)
    finetune(teacher, dataset, OPTIONS)
    others = {
        split: replace(getattr(dataset, split), labels=(getattr(dataset, split).labels + 1) % 4)
        for split in ("train", "validation", "test")
    }
    reached = {}
    for share in ("auto", 0.0, 0.9):
        student = build(original)
        options = OPTIONS.model_copy(update={"distillation": share})
        finetune(student, replace(dataset, **others), options, teacher=teacher)
        reached[share] = evaluate(student.write_back(), others["test"], 4).top1
    assert reached["auto"] > 0.9
    assert reached[0.0] > 0.9
    assert reached[0.9] < 0.7


@pytest.mark.parametrize("tail", [[], [nn.Sigmoid()]])
def test_the_loss_is_shared_between_labels_and_original_image_by_image(uploads, tail):
    model = exported(network(4, *tail))
    dataset, teacher = dataset_of(uploads[4], model), build(model)
    finetune(teacher, dataset, OPTIONS.model_copy(update={"epochs": 1, "learning_rate": 0.02}))
    images, labels = (torch.from_numpy(each) for each in next(dataset.train.batches(64)))
    right = evaluated_rightly(teacher, images, labels)
    assert 0 < right.sum() < len(right)

    def loss(share, some):
        options = FinetuneOptions(distillation=share, device="cpu")
        objective = objective_of(build(model), dataset, options, torch.device("cpu"), teacher)
        with torch.no_grad():
            outputs = build(model).up_to(*objective.values)(images[some])
            return objective.loss(outputs, images[some], labels[some]).item()

    expected = right.float().mean() * loss(0.5, right) + (~right).float().mean() * loss(0.0, ~right)
    assert loss("auto", slice(None)) == pytest.approx(expected.item(), rel=1e-5)
    assert loss("auto", slice(None)) != pytest.approx(loss(0.5, slice(None)), rel=1e-3)


def test_the_first_training_loss_is_of_what_is_trained_on(uploads):
    """Nothing is left to learn from an original that the network still is; the labels say otherwise."""
    model = exported(network(4))
    options = OPTIONS.model_copy(update={"epochs": 1, "distillation": 1.0})
    first, *_ = finetune(build(model), dataset_of(uploads[4], model), options, teacher=build(model)).epochs
    assert first.train_loss == pytest.approx(0, abs=1e-5)
    assert first.validation_loss > 0.5


def evaluated_rightly(form, images, labels):
    with torch.no_grad():
        return form.module.eval()(images)[0].argmax(1) == labels


class TwoOutputs(nn.Module):
    """Class scores, and an embedding that no label tells anything of."""

    def __init__(self):
        super().__init__()
        self.trunk = network(16)
        self.scores, self.embedding = nn.Linear(16, 4), nn.Linear(16, 6)

    def forward(self, x):
        features = self.trunk(x).relu()
        return self.scores(features), self.embedding(features)


@pytest.mark.parametrize("distillation", [0.0, 0.5])
def test_outputs_beside_the_class_scores_stay_what_the_originals_are(uploads, distillation):
    model = exported(TwoOutputs())
    dataset, teacher = dataset_of(uploads[4], model), build(model)
    finetune(teacher, dataset, OPTIONS)
    with torch.no_grad():  # so that a student that learns the scores alone has another embedding
        teacher.module.get_parameter(teacher.parameters["embedding.weight"]).neg_()
    options = OPTIONS.model_copy(update={"epochs": 12, "distillation": distillation})
    students = {}
    for others in (True, False):
        students[others] = form = build(model)
        if others:
            finetune(form, dataset, options, teacher=teacher)
        else:
            finetune(form, dataset, options.model_copy(update={"distillation": 0.0}))
    images, _ = next(dataset.test.batches(64))
    with torch.no_grad():
        wanted = teacher.module(torch.from_numpy(images))[1]
        missed = {
            others: (form.module(torch.from_numpy(images))[1] - wanted).square().mean() / wanted.var()
            for others, form in students.items()
        }
    assert missed[True] < 0.25
    assert missed[False] > 0.5
    assert evaluate(students[True].write_back(), dataset.test, 4).top1 > 0.8


def test_one_output_is_trained_alike_whether_or_not_the_original_is_at_hand(uploads):
    model = exported(network(4, nn.Softmax(1)))
    dataset, options = dataset_of(uploads[4], model), OPTIONS.model_copy(update={"epochs": 1, "distillation": 0.0})
    forms = [build(model), build(model)]
    assert not needs_teacher(forms[0], dataset, options)
    for form, teacher in zip(forms, (None, build(model)), strict=True):
        torch.manual_seed(0)
        finetune(form, dataset, options, teacher=teacher)
    with_and_without = zip(*(form.module.state_dict().values() for form in forms), strict=True)
    assert all(torch.equal(a, b) for a, b in with_and_without)


@pytest.mark.parametrize(
    ("ends", "needed"), [("the class", False), ("of the image alone", False), ("of the features", True)]
)
def test_the_original_is_needed_for_outputs_that_training_on_the_scores_changes(uploads, ends, needed):
    g = GraphBuilder(17)
    image = g.input(("n", 1, 8, 8))
    features = g.node("Flatten", g.node("GlobalAveragePool", g.node("Relu", g.conv(image, 1, 8))))
    scores = g.node("Softmax", g.gemm(features, 8, 4))
    others = {
        "the class": lambda: g.node("ArgMax", scores, axis=1, keepdims=0),
        "of the image alone": lambda: g.node("Flatten", g.node("GlobalAveragePool", image)),
        "of the features": lambda: g.gemm(features, 8, 4),
    }
    model = g.model(others[ends](), scores)
    dataset, form = dataset_of(uploads[4], model), build(model)
    plain = OPTIONS.model_copy(update={"distillation": 0.0})
    assert needs_teacher(form, dataset, plain) is needed
    for share in ("auto", 0.5):
        assert needs_teacher(form, dataset, OPTIONS.model_copy(update={"distillation": share}))
    assert needs_teacher(form, replace(dataset, classes=()), plain)
    found = objective_of(form, dataset, plain, torch.device("cpu"), build(model))
    assert len(found.values) == 1 + needed


@pytest.mark.parametrize("ends", ["flattened", "with the class", "with flags"])
def test_what_follows_from_the_class_scores_alone_is_nothing_beside_them(uploads, ends):
    g = GraphBuilder(17)
    maps = g.node("GlobalAveragePool", g.node("Relu", g.conv(g.input(("n", 1, 8, 8)), 1, 4)))
    scores = g.node("Flatten", maps)
    outputs = [scores]
    if ends == "with the class":
        outputs = [g.node("Softmax", scores)]
        outputs.append(g.node("ArgMax", outputs[0], axis=1, keepdims=0))
    if ends == "with flags":  # of which no gradient tells anything
        outputs.append(g.node("Greater", g.node("ReduceMean", maps, axes=[1, 2, 3]), g.constant(np.float32(0))))
    model = g.model(*outputs)
    options = OPTIONS.model_copy(update={"distillation": 0.5})
    dataset, teacher = dataset_of(uploads[4], model), build(model)
    found = objective_of(build(model), dataset, options, torch.device("cpu"), teacher)
    assert found.values == (scores,)


def test_the_first_training_loss_is_that_of_images_of_all_classes(uploads):
    """Images lie class by class."""
    model = exported(network(4))
    dataset = dataset_of(uploads[4], model)
    order = np.argsort(dataset.train.labels, kind="stable")
    sorted_train = replace(dataset.train, rows=dataset.train.rows[order], labels=dataset.train.labels[order])
    form = build(model)
    with torch.no_grad():
        form.module.get_parameter(form.parameters["7.bias"]).copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    (first, *_) = finetune(form, replace(dataset, train=sorted_train), OPTIONS.model_copy(update={"epochs": 1})).epochs
    assert first.train_loss == pytest.approx(first.validation_loss, rel=0.3)


def test_only_the_kernels_of_layers_are_decayed():
    """The grid and the anchors of a detector are no weights that should shrink."""
    g = GraphBuilder(17, seed=0)
    x = g.node("Relu", g.batch_norm(g.conv(g.input(("n", 1, 8, 8)), 1, 8), 8))
    x = g.node("Conv", x, g.weight(2, 8, 1, 1, name="kernel"), g.weight(2, name="bias"))
    model = g.model(g.node("Add", g.node("Mul", x, g.weight(1, 2, 8, 8, name="anchors")), g.weight(8, 8, name="grid")))
    form = build(model)
    chosen = decayed(form)
    found = {name: chosen(form.module.get_parameter(path)) for name, path in form.parameters.items()}
    assert {"kernel": True, "bias": False, "anchors": False, "grid": False}.items() <= found.items()
    assert sum(found.values()) == 2
