"""Learning from the original on images without labels: what is compared, and that it helps, whatever the outputs."""

import io

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from worker.engine.criteria import score
from worker.engine.data import DataOptions, Dataset, InputSpec, open_dataset
from worker.engine.errors import EngineError
from worker.engine.graph import analyze
from worker.engine.measure import fidelity
from worker.engine.recovery import FinetuneOptions, finetune
from worker.engine.recovery.imitation import targets
from worker.engine.surgery import Plan, prune
from worker.engine.torch_form import build

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class TwoTasks(nn.Module):
    """A map of scores in 0..1, and boxes in pixels, from one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()
        )
        self.map = nn.Conv2d(24, 2, 1)
        self.boxes = nn.Conv2d(24, 4, 1)

    def forward(self, x):
        y = self.trunk(x)
        return self.map(y).sigmoid(), 100 * self.boxes(y).flatten(2).transpose(1, 2)


def exported(module: nn.Module) -> onnx.ModelProto:
    file = io.BytesIO()
    axes = {name: {0: "n"} for name in ("image", "map", "boxes")}
    torch.onnx.export(
        module.eval(), torch.zeros(2, 3, 8, 8), file, dynamo=False, input_names=["image"],
        output_names=["map", "boxes"], dynamic_axes=axes,
    )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images.npz"
    x = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3)).astype(np.uint8)
    np.savez(path, x=x)
    return path


def of(path, model: onnx.ModelProto) -> Dataset:
    return open_dataset(path, InputSpec.of(model), DataOptions((0.5,), (0.25,)))


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    analysis = analyze(model)
    scores = score(analysis, "l2")
    kept = {g.id: np.argsort(np.argsort(-scores[g.id])) < (len(g) + 1) // 2 for g in analysis.groups}
    return prune(analysis, Plan(kept))


def test_outputs_of_any_task_come_back_to_the_originals(images, tmp_path):
    torch.manual_seed(0)
    model = exported(TwoTasks())
    cut, dataset = halved(model), of(images, model)
    assert not dataset.labelled
    form = build(cut)
    options = FinetuneOptions(epochs=6, learning_rate=2e-3, optimizer="adamw", batch_size=16, device="cpu")
    rows = finetune(form, dataset, options, teacher=build(model)).epochs
    assert all(row.validation_top1 is None for row in rows)
    assert min(row.validation_loss for row in rows) < 0.5 * rows[0].validation_loss

    paths = {name: tmp_path / f"{name}.onnx" for name in ("original", "cut", "final")}
    for path, made in zip(paths.values(), (model, cut, form.write_back()), strict=True):
        onnx.save(made, path)
    before, after = (fidelity(paths["original"], paths[name], dataset.test) for name in ("cut", "final"))
    for then, now in zip(before.outputs, after.outputs, strict=True):
        assert now.error is not None
        assert then.error is not None
        assert now.error < 0.8 * then.error, now.name
    same = fidelity(paths["original"], paths["original"], dataset.test)
    assert same.error == 0
    assert same.samples == len(dataset.test)


def test_sigmoids_are_compared_before_they_saturate():
    model = exported(TwoTasks())
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert [makers[name] for name in targets(model)] == ["Conv", "Mul"]


def one_score(seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    weights = {"w": rng.normal(0, 0.3, (8, 3, 3, 3)), "v": rng.normal(0, 0.3, (8, 1))}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["c"]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "v"], ["score"]),
        ],
        "one_score",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("batch_size", [1, 9])
def test_how_much_a_single_score_varies_does_not_depend_on_the_batch(images, batch_size):
    """Within a batch of one image it does not vary at all."""
    model, other = one_score(0), one_score(1)
    dataset = of(images, model)
    assert len(dataset.validation) % batch_size == (batch_size > 1)
    options = FinetuneOptions(epochs=1, learning_rate=1e-3, batch_size=batch_size, device="cpu")
    first, last = finetune(build(other), dataset, options, teacher=build(model)).epochs
    undivided = options.model_copy(update={"epochs": 0, "batch_size": 64})
    (expected,) = finetune(build(other), dataset, undivided, teacher=build(model)).epochs
    assert first.validation_loss == pytest.approx(expected.validation_loss, rel=1e-4)
    assert last.validation_loss < 2 * first.validation_loss  # it does not diverge


def test_a_score_that_never_varies_is_learnt_too(images):
    model = one_score(0)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w"))
    options = FinetuneOptions(epochs=1, learning_rate=1e-3, batch_size=16, device="cpu")
    first, last = finetune(build(one_score(1)), of(images, model), options, teacher=build(model)).epochs
    assert last.validation_loss < first.validation_loss < 10


def detector() -> onnx.ModelProto:
    """Boxes and scores from one convolution, chosen between by NonMaxSuppression."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "wb": rng.normal(0, 0.3, (4, 8, 1, 1)).astype(np.float32),
        "ws": rng.normal(0, 0.3, (2, 8, 1, 1)).astype(np.float32),
        "flat_boxes": np.array([1, 4, 64]),
        "flat_scores": np.array([1, 2, 64]),
        "most": np.array([5]),
        "iou": np.array([0.9], np.float32),
        "least": np.array([-9.0], np.float32),
        "column": np.array([2]),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "wb"], ["raw_boxes"]),
        node("Conv", ["r", "ws"], ["raw_scores"]),
        node("Reshape", ["raw_boxes", "flat_boxes"], ["b"]),
        node("Transpose", ["b"], ["boxes"], perm=[0, 2, 1]),
        node("Reshape", ["raw_scores", "flat_scores"], ["scores"]),
        node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["chosen"]),
        node("Gather", ["chosen", "column"], ["picked"], axis=1),
        node("Squeeze", ["picked"], ["index"]),
        node("Gather", ["boxes", "index"], ["found"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_a_choice_is_made_from_is_compared_in_place_of_what_was_chosen(images):
    model = detector()
    assert set(targets(model)) == {"boxes", "scores"}
    cut = halved(model)
    form = build(cut)
    options = FinetuneOptions(epochs=2, learning_rate=1e-3, optimizer="adamw", batch_size=1, device="cpu")
    rows = finetune(form, of(images, model), options, teacher=build(model)).epochs
    assert rows[-1].validation_loss < rows[0].validation_loss


def test_nothing_to_compare_is_said(images):
    """A choice among the pixels themselves."""
    model = detector()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("ArgMax", ["image"], ["found"], axis=1))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(EngineError) as caught:
        finetune(build(model), of(images, model), FinetuneOptions(epochs=1, device="cpu"), teacher=build(model))
    assert caught.value.code == "nothing_to_imitate"
