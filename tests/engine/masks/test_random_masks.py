"""Random masks: exact counts, the same draws everywhere, and the scores of a plain evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import coloured_squares, convnet, double_precision_input
from worker.engine.allocation import allocate, macs_limit, plan_of
from worker.engine.criteria import score
from worker.engine.data import DataOptions, Dataset, InputSpec, open_dataset
from worker.engine.errors import EngineError
from worker.engine.export.half_precision import to_half_precision
from worker.engine.graph import analyze
from worker.engine.kernels import find_targets
from worker.engine.kernels.proof import masked
from worker.engine.masks.draws import Draws, draw_kernels, draw_plan
from worker.engine.masks.norms import renormed
from worker.engine.masks.prefix import longest_prefix
from worker.engine.masks.search import Search, best_kernels, best_plan
from worker.engine.measure import evaluate
from worker.engine.proof import masked_original
from worker.engine.recovery import reestimate_norms
from worker.engine.surgery import prune
from worker.engine.torch_form import build

SEED = 4


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return convnet()


@pytest.fixture(scope="module")
def dataset(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path: Path = tmp_path_factory.mktemp("data") / "squares.npz"
    path.write_bytes(coloured_squares())
    return open_dataset(path, InputSpec.of(model), DataOptions(validation_fraction=0.4), seed=0)


@pytest.fixture(scope="module")
def fitted(model: onnx.ModelProto, dataset: Dataset) -> onnx.ModelProto:
    """The same with a last layer that knows the images: with random weights masks differ in next to nothing."""
    exposed, found = onnx.ModelProto(), onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.append(onnx.ValueInfoProto(name="flat"))
    images, labels = next(dataset.train.batches(len(dataset.train)))
    (flat,) = onnxruntime.InferenceSession(exposed.SerializeToString()).run(["flat"], {"image": images})
    weights = np.linalg.solve(flat.T @ flat + 0.1 * np.eye(flat.shape[1]), flat.T @ (np.eye(4)[labels] - 0.25))
    found.CopyFrom(model)
    (tensor,) = [each for each in found.graph.initializer if each.name == "fc.weight"]
    tensor.CopyFrom(numpy_helper.from_array(weights.T.astype(np.float32), tensor.name))
    return found


def test_channel_masks_score_as_the_masked_original_does(fitted: onnx.ModelProto, dataset: Dataset) -> None:
    analysis = analyze(fitted)
    kept = allocate(analysis, score(analysis, "l2"), [macs_limit(analysis, 0.4)]).plan.counts(analysis)
    plan, outcome = best_plan(analysis, kept, Search(dataset, count=8, family=1, seed=SEED))
    drawn = [draw_plan(analysis, kept, Draws(SEED), number) for number in range(8)]
    for each, found in zip(drawn, outcome.scores, strict=True):
        assert (each.counts(analysis) == kept).all()
        plain = evaluate(masked_original(analysis, analysis.alive(each.kept)), dataset.validation, 4)
        assert found.samples == plain.samples
        assert found.wrong == round((1 - plain.top1) * plain.samples)
    best = drawn[outcome.best]
    assert all((plan.kept[group] == best.kept[group]).all() for group in best.kept)
    assert outcome.scores[outcome.best].wrong == min(score.wrong for score in outcome.scores)
    assert outcome.best > 0
    assert len({each.kept[0].tobytes() for each in drawn}) == 8
    vote = masked_original(analysis, analysis.alive(plan_of(analysis, score(analysis, "l1"), kept).kept))
    assert outcome.control.error == pytest.approx(1 - evaluate(vote, dataset.validation, 4).top1)


def test_kernel_masks_score_as_the_masked_original_does(fitted: onnx.ModelProto, dataset: Dataset) -> None:
    analysis = analyze(fitted)
    targets, _ = find_targets(analysis)
    masks, outcome = best_kernels(analysis, targets, 0.6, Search(dataset, count=5, family=1, seed=SEED))
    for number, found in enumerate(outcome.scores):
        drawn = dict(draw_kernels(targets, 0.6, Draws(SEED), number))
        assert (~drawn["conv1.weight"]).sum() == round(0.6 * 32 * 32)
        plain = evaluate(masked(fitted, drawn), dataset.validation, 4)
        assert found.wrong == round((1 - plain.top1) * plain.samples)
    assert outcome.scores[outcome.best].wrong == min(score.wrong for score in outcome.scores)
    assert outcome.best > 0
    assert (masks["conv1.weight"] == draw_kernels(targets, 0.6, Draws(SEED), outcome.best)["conv1.weight"]).all()
    vote = masked(fitted, {each.weight: strongest(array(fitted, each.weight), 0.4) for each in targets})
    assert outcome.control.error == pytest.approx(1 - evaluate(vote, dataset.validation, 4).top1)


def strongest(weight: np.ndarray, share: float) -> np.ndarray:
    """That share of the kernels, by their L1 norms."""
    sums = np.abs(weight.astype(np.float64)).sum(axis=(2, 3))
    return sums > np.quantile(sums, 1 - share)


def test_draws_and_scores_do_not_depend_on_the_number_of_threads(model: onnx.ModelProto, dataset: Dataset) -> None:
    analysis = analyze(model)
    kept = analysis.full // 2
    one, two = (best_plan(analysis, kept, Search(dataset, count=6, seed=SEED, threads=n)) for n in (1, 2))
    assert one[1] == two[1]
    assert all((one[0].kept[group] == two[0].kept[group]).all() for group in one[0].kept)


@pytest.mark.parametrize("family", [2, 3])
def test_families_share_what_they_draw_first_and_score_as_masks_by_themselves_do(
    model: onnx.ModelProto, dataset: Dataset, family: int
) -> None:
    analysis = analyze(model)
    prefix = longest_prefix(analysis, 0.5)
    assert prefix is not None
    assert prefix.tensor == "r0"
    assert 0 < prefix.macs_share <= 0.5
    draws = Draws(SEED, family, prefix)
    plan, outcome = best_plan(analysis, analysis.full // 2, Search(dataset, count=7, family=family, seed=SEED))
    drawn = [draw_plan(analysis, analysis.full // 2, draws, number) for number in range(7)]
    for each, found in zip(drawn, outcome.scores, strict=True):
        plain = evaluate(masked_original(analysis, analysis.alive(each.kept)), dataset.validation, 4)
        assert found.wrong == round((1 - plain.top1) * plain.samples)
    assert all((plan.kept[group] == drawn[outcome.best].kept[group]).all() for group in plan.kept)
    first, second = (analysis.groups[group].id for group in (0, 1))
    assert len({each.kept[first].tobytes() for each in drawn}) == -(-7 // family)
    assert len({each.kept[second].tobytes() for each in drawn}) == 7


def reestimated(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """Norm by norm in torch, as recovery does it."""
    form = build(model)
    assert reestimate_norms(form, [torch.from_numpy(batch) for batch in np.array_split(images, 3)]) == 2
    return form.write_back()


@pytest.mark.parametrize("family", [1, 3])
def test_norms_are_taken_anew_for_each_mask_as_recovery_takes_them(
    model: onnx.ModelProto, dataset: Dataset, family: int
) -> None:
    analysis, kept = analyze(model), analyze(model).full // 2
    search = Search(dataset, count=4, family=family, seed=SEED, calibration_images=40)
    _, outcome = best_plan(analysis, kept, search)
    images, _ = next(dataset.train.batches(40, rng=np.random.default_rng([SEED, 5])))
    draws = search.draws(analysis)
    for number, found in enumerate(outcome.scores):
        cut = prune(analysis, draw_plan(analysis, kept, draws, number))
        plain = evaluate(reestimated(cut, images), dataset.validation, 4)
        assert found.wrong == round((1 - plain.top1) * plain.samples)
    _, untouched = best_plan(analysis, kept, Search(dataset, count=4, family=family, seed=SEED))
    assert [score.wrong for score in untouched.scores] != [score.wrong for score in outcome.scores]
    assert outcome.control != untouched.control


@pytest.mark.parametrize("opset", [13, 18])
def test_averages_on_one_batch_are_those_taken_norm_by_norm(opset: int) -> None:
    model = convnet()
    model.opset_import[0].version = opset
    norms(model)[1].attribute.append(helper.make_attribute("epsilon", 0.5))
    images = np.random.default_rng(0).normal(0.4, 2, (30, 3, 12, 12)).astype(np.float32)
    taken, output = renormed(model, images)
    expected = reestimated(model, images)
    ours, theirs = (
        {(node.output[0], place): array(each, node.input[place]) for node in norms(each) for place in (1, 2, 3, 4)}
        for each in (taken, expected)
    )
    assert len(ours) == 8
    for place, value in theirs.items():
        np.testing.assert_allclose(ours[place], value, rtol=1e-4, atol=1e-5)
    (computed,) = onnxruntime.InferenceSession(taken.SerializeToString()).run(None, {"image": images})
    np.testing.assert_allclose(output, computed, rtol=1e-4, atol=1e-5)


def norms(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def array(model: onnx.ModelProto, name: str) -> np.ndarray:
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    return np.asarray(numpy_helper.to_array(tensor))


def test_norms_of_a_fixed_batch_are_told_how_to_be_taken_anew(model: onnx.ModelProto, dataset: Dataset) -> None:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 32
    with pytest.raises(EngineError, match="batch of 40 calibration images") as told:
        best_plan(analyze(fixed), analyze(fixed).full // 2, Search(dataset, count=2, calibration_images=40))
    assert "dynamic batch axis" in told.value.hint


def test_a_network_without_a_narrow_place_has_no_prefix() -> None:
    g = GraphBuilder()
    x = g.input(("batch", 3, 8, 8))
    both = g.node("Concat", g.conv(x, 3, 8), g.conv(x, 3, 8), axis=1)
    whole = analyze(g.model(g.node("Concat", g.conv(both, 16, 8), x, axis=1)))
    assert longest_prefix(whole, 0.9) is None


def test_part_of_the_images_can_do(model: onnx.ModelProto, dataset: Dataset) -> None:
    analysis = analyze(model)
    _, outcome = best_plan(analysis, analysis.full // 2, Search(dataset, count=2, samples=21))
    assert {score.samples for score in outcome.scores} == {21}
    assert outcome.control.samples == 21


def test_part_of_the_images_is_drawn_from_all_classes(dataset: Dataset) -> None:
    """Images that come in folders lie class by class."""
    split = dataset.validation
    by_class = np.argsort(split.labels, kind="stable")
    sorted_split = replace(split, rows=split.rows[by_class], labels=split.labels[by_class])
    ordered = replace(dataset, validation=sorted_split)
    drawn = [Search(ordered, samples=20, seed=SEED).images() for _ in range(2)]
    assert len(np.unique(drawn[0].labels)) == 4
    assert drawn[0].rows.tolist() == drawn[1].rows.tolist()
    assert len(np.unique(drawn[0].rows)) == 20


def test_families_of_a_network_of_halves_score_as_masks_by_themselves_do(
    model: onnx.ModelProto, dataset: Dataset
) -> None:
    analysis = analyze(to_half_precision(model, keep_io=False))
    kept = analysis.full // 2
    search = Search(dataset, count=3, family=3, seed=SEED)
    _, outcome = best_plan(analysis, kept, search)
    assert longest_prefix(analysis, 0.5) is not None
    for number, found in enumerate(outcome.scores):
        cut = prune(analysis, draw_plan(analysis, kept, search.draws(analysis), number))
        plain = evaluate(cut, dataset.validation, 4)
        assert found.wrong == pytest.approx((1 - plain.top1) * plain.samples, abs=1.01)


def test_images_in_double_precision_score_as_those_in_single_do(model: onnx.ModelProto, dataset: Dataset) -> None:
    kept = analyze(model).full // 2
    for calibration_images in (0, 40):
        search = Search(dataset, count=3, family=3, seed=SEED, calibration_images=calibration_images)
        single, double = (best_plan(analyze(each), kept, search)[1] for each in (model, double_precision_input(model)))
        assert double == single


def test_a_fixed_batch_is_filled_up(model: onnx.ModelProto, dataset: Dataset) -> None:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 32
    kept = analyze(model).full // 2
    search = Search(dataset, count=2, samples=50, seed=SEED)
    free, filled = (best_plan(analyze(each), kept, search)[1] for each in (model, fixed))
    assert np.array_equal([s.wrong for s in free.scores], [s.wrong for s in filled.scores])
    assert filled.control == free.control
