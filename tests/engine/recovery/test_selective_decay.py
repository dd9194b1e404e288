"""Decay before the cut: what will go vanishes, what stays does not, and the cut then changes next to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.worker.networks import coloured_squares, convnet, residual_network
from worker.engine.allocation import plan_of
from worker.engine.criteria import score
from worker.engine.data import Dataset, InputSpec, open_dataset
from worker.engine.errors import EngineError
from worker.engine.graph import Analysis, analyze
from worker.engine.recovery import FinetuneOptions, SelectiveDecay, doomed_weights, finetune
from worker.engine.recovery.selective_decay import Growth
from worker.engine.surgery import Plan, prune
from worker.engine.torch_form import build

OPTIONS = FinetuneOptions(
    epochs=12, learning_rate=0.05, momentum=0.9, weight_decay=0.0, batch_size=16, device="cpu", precision="float32"
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["with norms", "without"])
def analysis(request: pytest.FixtureRequest) -> Analysis:
    """Of networks with norms, and of one in which gradients are clipped."""
    return analyze(convnet() if request.param == "with norms" else residual_network(1, 16, size=12))


@pytest.fixture(scope="module")
def dataset(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path: Path = tmp_path_factory.mktemp("data") / "squares.npz"
    path.write_bytes(coloured_squares())
    return open_dataset(path, InputSpec.of(analysis.graph.model))


@pytest.fixture(scope="module")
def plan(analysis: Analysis) -> Plan:
    return plan_of(analysis, score(analysis, "l2"), analysis.full // 2)


@dataclass(frozen=True)
class Trained:
    """Norms over all doomed and over all kept weights of the pruned parameters, after / before; and the model."""

    doomed: float
    kept: float
    model: onnx.ModelProto


def trained(analysis: Analysis, dataset: Dataset, plan: Plan, growth: Growth | None) -> Trained:
    form = build(analysis.graph.model)
    doomed = doomed_weights(analysis, plan, form)
    before = {path: form.module.get_parameter(path).detach().clone() for path in doomed}
    decay = SelectiveDecay(doomed, growth, 1e-2, 10.0) if growth is not None else None
    finetune(form, dataset, OPTIONS, decay=decay)
    after = {path: form.module.get_parameter(path).detach() for path in doomed}
    gone, left = (
        norm([(after[path], doomed[path] == which) for path in doomed])
        / norm([(before[path], doomed[path] == which) for path in doomed])
        for which in (True, False)
    )
    return Trained(gone, left, form.write_back())


def norm(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    return float(torch.cat([values[mask] for values, mask in parts]).norm())


def change_by_the_cut(model: onnx.ModelProto, plan: Plan, images: np.ndarray) -> float:
    """The outputs' difference, cut and whole, over the outputs."""
    whole, cut = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"image": images})[0]
        for each in (model, prune(analyze(model), plan))
    )
    return float(np.linalg.norm(cut - whole) / np.linalg.norm(whole))


@pytest.fixture(scope="module")
def undecayed(analysis: Analysis, dataset: Dataset, plan: Plan) -> Trained:
    return trained(analysis, dataset, plan, None)


@pytest.mark.parametrize("growth", ["swd", "greg"])
def test_doomed_weights_vanish_and_the_cut_then_changes_next_to_nothing(
    analysis: Analysis, dataset: Dataset, plan: Plan, undecayed: Trained, growth: Growth
) -> None:
    decayed = trained(analysis, dataset, plan, growth)
    assert decayed.doomed < 0.01
    assert decayed.kept > 0.5
    assert undecayed.doomed > 0.5
    images, _ = next(dataset.test.batches(40))
    with_decay, without = (change_by_the_cut(each.model, plan, images) for each in (decayed, undecayed))
    assert without > 0.1
    assert with_decay < 0.01


def test_the_decay_grows_as_its_paper_says() -> None:
    """SWD: a_min (a_max / a_min) ** share of the training. GReg-1: from nothing, by the same amount each time."""
    swd, greg = (SelectiveDecay({}, growth, 1e-3, 10.0) for growth in ("swd", "greg"))
    assert [swd.rate(share) for share in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1e-3, 1e-2, 1e-1, 10.0])
    assert [greg.rate(share) for share in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.0, 2.5, 5.0, 10.0])
    assert greg.rate(0.2549) == greg.rate(0.25) < greg.rate(0.26)


def test_what_vanishing_weights_cost_is_no_divergence(
    analysis: Analysis, dataset: Dataset, plan: Plan, undecayed: Trained
) -> None:
    """A network that is sure of its answers has next to no loss, and many times that without half of its channels."""
    form = build(undecayed.model)
    size = 1e4 if form.averages else 500.0  # more of it diverges indeed where no norms follow
    strong = SelectiveDecay(doomed_weights(analysis, plan, form), "swd", size, size)
    training = finetune(form, dataset, OPTIONS.model_copy(update={"epochs": 1, "learning_rate": 1e-3}), decay=strong)
    before, after = training.epochs
    assert after.validation_loss > 1 > 20 * before.validation_loss
    assert training.retreats == 0


def test_a_decay_is_named_where_a_training_diverges(analysis: Analysis, dataset: Dataset, plan: Plan) -> None:
    form = build(analysis.graph.model)
    decay = SelectiveDecay(doomed_weights(analysis, plan, form), "swd", 1e-2, 10.0)
    with pytest.raises(EngineError) as caught:
        finetune(form, dataset, OPTIONS.model_copy(update={"learning_rate": 1e30}), decay=decay)
    assert (caught.value.code, caught.value.hint) == ("diverged", "Lower the learning rate, or regularisation.last.")


def test_only_what_the_plan_removes_is_doomed(analysis: Analysis, plan: Plan) -> None:
    form = build(analysis.graph.model)
    doomed = doomed_weights(analysis, plan, form)
    name = next(tensor.name for tensor in analysis.graph.proto.initializer if list(tensor.dims[1:]) == [3, 3, 3])
    first = doomed[form.parameters[name]].numpy()  # (outputs, 3, 3, 3); its inputs are the image's
    assert (first == ~plan.kept[0].reshape(-1, 1, 1, 1)).all()
    assert first.any()
    assert not first.all()
