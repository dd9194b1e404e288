"""Masks over the torch form answer as the pruned network does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import convnet
from worker.engine.allocation import allocate, macs_limit, plan_of
from worker.engine.criteria import score
from worker.engine.data import Dataset
from worker.engine.errors import EngineError
from worker.engine.graph import Analysis, analyze
from worker.engine.measure import evaluate
from worker.engine.measure.session import cpu_session
from worker.engine.probe import (
    Objective,
    Probe,
    Sensitivity,
    importance_lost,
    measure_sensitivity,
    some_images,
    some_noise,
)
from worker.engine.probe.masked_form import MaskedForm
from worker.engine.recovery import calibration_batches, reestimate_norms
from worker.engine.surgery import Plan, prune
from worker.engine.torch_form import build

KEEP = (0.75, 0.5, 0.25)


def half(analysis: Analysis) -> Plan:
    return allocate(analysis, score(analysis, "l1"), [macs_limit(analysis, 0.5)]).plan


def test_the_output_changes_as_much_as_that_of_the_pruned_network(digits_analysis: Analysis) -> None:
    noise, plan = some_noise(digits_analysis, 5, seed=3), half(digits_analysis)
    (found,) = Probe(digits_analysis, noise).responses([plan])
    feed = noise.inputs
    before, after = (
        cpu_session(model, 1).run(None, feed)[0]
        for model in (digits_analysis.graph.model, prune(digits_analysis, plan))
    )
    expected = float(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert found.change == pytest.approx(expected, rel=1e-4)
    assert found.top1 is None


def test_forms_beside_each_other_have_one_set_of_weights_and_masks_of_their_own(digits_analysis: Analysis) -> None:
    first = MaskedForm(digits_analysis)
    second = MaskedForm(digits_analysis, weights_of=first)
    ours, theirs = (dict(form.module.named_parameters()) for form in (first, second))
    assert ours.keys() == theirs.keys()
    assert {path for path in ours if ours[path] is not theirs[path]} == first.masks
    inputs = [torch.from_numpy(value) for value in some_noise(digits_analysis, 3).inputs.values()]
    with torch.no_grad():
        whole = first.module(*inputs)[0]
        second.silence(half(digits_analysis))
        assert torch.equal(first.module(*inputs)[0], whole)
        cut = second.module(*inputs)[0]
        first.silence(half(digits_analysis))
        assert torch.equal(first.module(*inputs)[0], cut)
    assert not torch.equal(cut, whole)


def test_channels_that_a_body_reads_are_not_taken_for_harmless() -> None:
    b = GraphBuilder(13)
    x = b.input((2, 3, 6, 6))
    maps = b.node("Relu", b.conv(x, 3, 8))
    bodies = []
    for op in ("Relu", "Tanh"):
        inner = b.inside()
        made = inner.node(op, inner.conv(maps, 8, 6))
        bodies.append(inner.body([], [helper.make_tensor_value_info(made, TensorProto.FLOAT, (2, 6, 6, 6))]))
    bright = b.node("Greater", b.node("ReduceMax", x, keepdims=0), b.constant(0.5))
    branch = b.node("If", bright, then_branch=bodies[0], else_branch=bodies[1])
    analysis = analyze(b.model(b.gemm(b.node("Flatten", b.node("GlobalAveragePool", branch)), 6, 4)))
    assert analysis.groups
    with pytest.raises(EngineError) as error:
        Probe(analysis, some_noise(analysis, 2))
    assert error.value.code == "no_masks"


def test_accuracy_is_that_of_the_pruned_network(digits_analysis: Analysis, digits_dataset: Dataset) -> None:
    split, plan = digits_dataset.validation, half(digits_analysis)
    images = some_images(digits_analysis, split, len(split), 10)
    probe = Probe(digits_analysis, images)
    cut, whole = probe.responses([plan, Plan({})])
    assert cut.top1 == pytest.approx(evaluate(prune(digits_analysis, plan), split, 10).top1)
    assert whole.top1 == pytest.approx(evaluate(digits_analysis.graph.model, split, 10).top1)
    assert whole.change == 0
    assert probe.original() == whole


def test_small_batches_answer_as_one(digits_analysis: Analysis) -> None:
    noise, plan = some_noise(digits_analysis, 6), half(digits_analysis)
    (whole,) = Probe(digits_analysis, noise).responses([plan])
    (parts,) = Probe(digits_analysis, noise, held_bytes=1).responses([plan])
    assert parts.change == pytest.approx(whole.change, rel=1e-5)


def test_plans_are_answered_alike_side_by_side_and_one_by_one(digits_analysis: Analysis) -> None:
    noise, scores = some_noise(digits_analysis, 3), score(digits_analysis, "l2")
    plans = [
        allocate(digits_analysis, scores, [macs_limit(digits_analysis, r)]).plan for r in (0.8, 0.6, 0.5, 0.4, 0.2)
    ]
    before, told, found = torch.get_num_threads(), [], []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(Probe(digits_analysis, noise).responses(plans, told.append))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
    assert told == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0] * 2)


def test_a_fixed_batch_is_filled_up() -> None:
    model = convnet()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    analysis = analyze(model)
    noise = some_noise(analysis, 1)
    assert len(noise) == 4
    (found,) = Probe(analysis, noise).responses([half(analysis)])
    assert 0 < found.change < 10


def test_each_width_is_cut_alone(digits_analysis: Analysis) -> None:
    scores, probe = score(digits_analysis, "l2"), Probe(digits_analysis, some_noise(digits_analysis, 4))
    found = measure_sensitivity(digits_analysis, scores, probe, KEEP)
    assert [s.width for s in found] == list(range(len(digits_analysis.widths)))
    for sensitivity, groups in zip(found, digits_analysis.widths, strict=True):
        whole = sum(len(digits_analysis.groups[g]) for g in groups)
        assert sensitivity.units == tuple(round(share * whole) for share in KEEP)
        assert all(loss > 0 for loss in sensitivity.loss)
        assert sensitivity.top1 is None
    alone = digits_analysis.full.copy()
    (group,) = digits_analysis.widths[1]
    alone[group] = found[1].units[2]
    (expected,) = probe.responses([plan_of(digits_analysis, scores, alone)])
    assert found[1].loss[2] == pytest.approx(expected.change)


def test_losses_between_the_measured_widths_never_fall() -> None:
    analysis = analyze(convnet())
    (first, *_) = importance_lost(analysis, score(analysis, "l1"), KEEP)
    losses = [first.at(units, 64) for units in range(64, -1, -1)]
    assert losses[0] == 0
    assert losses == sorted(losses)
    assert first.loss == tuple(sorted(first.loss))


def test_the_objective_is_that_of_the_cut_and_recovered_network(
    digits_analysis: Analysis, digits_dataset: Dataset
) -> None:
    plan = half(digits_analysis)
    objective = Objective(digits_analysis, digits_dataset, images=10_000, calibration_images=100, seed=1)
    found = objective(plan)
    form = build(prune(digits_analysis, plan))
    reestimate_norms(form, calibration_batches(digits_dataset.train, 100, (form,), 1))
    expected = evaluate(form.write_back(), digits_dataset.validation, 10)
    assert found.top1 == pytest.approx(expected.top1)
    assert -found.gain == pytest.approx(expected.loss, rel=1e-3)
    objective(half(digits_analysis))
    assert objective(plan) == found  # nothing is left behind by another plan
    assert objective(Plan({})).top1 >= found.top1


def test_what_goes_leaves_its_mean_behind(digits_analysis: Analysis) -> None:
    """As though every reader had the mean of what it lost in its bias; batches of one have the means of all images."""
    noise, plan = some_noise(digits_analysis, 6), half(digits_analysis)
    (zero,) = Probe(digits_analysis, noise).responses([plan])
    (mean,) = Probe(digits_analysis, noise, means=True).responses([plan])
    (parts,) = Probe(digits_analysis, noise, held_bytes=1, means=True).responses([plan])
    assert mean.change < 0.9 * zero.change
    assert parts.change == pytest.approx(mean.change, rel=1e-5)


def test_a_channel_that_is_constant_is_no_loss_where_means_stay() -> None:
    b = GraphBuilder(13)
    x = b.input((2, 3, 6, 6))
    weight = np.zeros((4, 3, 1, 1), np.float32)
    weight[0, 0] = weight[1, 1] = 1
    maps = b.node("Conv", x, b.constant(weight), b.constant(np.array([0, 0, 5, 5], np.float32)))
    analysis = analyze(b.model(b.conv(maps, 4, 2, kernel=1)))
    (group,) = analysis.groups
    constant = [Plan({group.id: np.array([True, True, False, True])})]
    (silent,) = Probe(analysis, some_noise(analysis, 2)).responses(constant)
    (filled,) = Probe(analysis, some_noise(analysis, 2), means=True).responses(constant)
    assert silent.change > 0.1
    assert filled.change < 1e-6


def test_a_width_of_one_unit_has_no_cut_and_costs_all_that_there_is() -> None:
    alone = Sensitivity(0, (), (), None)
    assert alone.at(1, 1) == 0
    assert alone.at(0, 1) > 1
