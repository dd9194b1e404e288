"""The heuristic estimator gamma: its rules by themselves, and budgets met on the networks of its paper."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest

from worker.engine.allocation import allocate, macs_limit
from worker.engine.allocation.heuristic import RULES, largest_gap, mean_std, otsu
from worker.engine.criteria import score
from worker.engine.graph import Analysis, analyze
from worker.engine.proof import prove
from worker.engine.surgery import prune

SCORES = np.array([0.1, 0.15, 0.2, 0.9, 1.0, 1.1, 1.2, 3.0])


def test_mean_std_is_the_mean_minus_one_k_of_standard_deviations_in_all_layers() -> None:
    layers = [SCORES, np.array([4.9, 5.0, 5.1, 5.0]), np.append(np.linspace(1, 2, 40), 30.0)]
    for strength in (0.1, 0.25, 0.5, 0.8):
        gammas = mean_std(layers, strength, 0.25)
        ks = [(s.mean() - gamma) / s.std() for s, gamma in zip(layers, gammas, strict=True)]
        reach = (30.0 - layers[2].mean()) / layers[2].std() + 1  # the layer with the farthest outlier
        assert ks == pytest.approx([reach * (1 - 2 * strength)] * 3)


def test_largest_gap_cuts_between_the_clusters_and_leaves_outliers() -> None:
    # Sought at rank 4 of 8, within ranks 2 to 6: the gap below 0.9, not the larger one below the outlier 3.0.
    assert largest_gap(SCORES, 0.5, 0.25) == pytest.approx((0.2 + 0.9) / 2)


def test_otsu_parts_two_clusters() -> None:
    two = np.array([0.1, 0.2, 0.3, 2.0, 2.1, 2.2])
    assert otsu(two, 0.5, 0.25) == pytest.approx((0.3 + 2.0) / 2)


def test_otsu_leaves_least_variance_within_the_two_classes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        ordered = np.sort(rng.exponential(size=30))
        within = [split * ordered[:split].var() + (30 - split) * ordered[split:].var() for split in range(1, 30)]
        split = int(np.argmin(within)) + 1
        assert otsu(ordered, 0.5, 0.25) == pytest.approx((ordered[split - 1] + ordered[split]) / 2)


def test_otsu_takes_a_layer_of_zeros_first() -> None:
    assert otsu(np.zeros(8), 0.01, 0.25) > 0


@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_runs_from_nothing_to_everything(rule: str) -> None:
    rng = np.random.default_rng(3)
    layers = [SCORES, np.ones(5), rng.random(40), np.array([2.0]), np.full(5, 1e9), 1e-12 * rng.random(40)]
    gammas = [RULES[rule](layers, strength, 0.25) for strength in np.linspace(1e-6, 1, 101)]
    for layer, scores in enumerate(layers):
        kept = [int((scores >= each[layer]).sum()) for each in gammas]
        assert kept == sorted(kept, reverse=True)
        assert kept[0] == len(scores)
        assert kept[-1] == 0


def exported(name: str, size: int, *, cifar: bool) -> onnx.ModelProto:
    """A torchvision network with random weights; its CIFAR form has a first layer that keeps the size."""
    import torch
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=10)
    if cifar and name == "resnet34":
        model.conv1, model.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    elif cifar and name == "vgg16":
        model.avgpool, model.classifier = torch.nn.Identity(), torch.nn.Linear(512, 10)
    elif cifar:  # AlexNet
        model.features[0], model.avgpool = torch.nn.Conv2d(3, 64, 3, stride=2, padding=1), torch.nn.Identity()
        model.classifier = torch.nn.Linear(256 * (size // 16 - 1) ** 2, 10)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, size, size),),
            file,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return onnx.load_model_from_string(file.getvalue())


def cut(analysis: Analysis, rule: str, ratio: float) -> None:
    """The budget is met closely, at rates that the layers' own scores decide, and the cut is proved."""
    scores = score(analysis, "l1")
    found = allocate(analysis, scores, [macs_limit(analysis, ratio)], method="heuristic", options={"rule": rule})
    assert found.reached
    assert ratio - 0.03 <= found.macs / analysis.macs <= ratio
    rates = {round(float(mask.mean()), 2) for mask in found.plan.kept.values()}
    assert len(rates) > 2
    pruned = prune(analysis, found.plan)
    assert prove(analysis, found.plan, pruned, inputs_per_size=1).passed


@pytest.mark.parametrize(("name", "ratio"), [("alexnet", 0.5), ("vgg16", 0.2253), ("resnet34", 0.5806)])
def test_budgets_are_met_on_the_cifar_forms(name: str, ratio: float) -> None:
    analysis = analyze(exported(name, 32, cifar=True))
    for rule in RULES:
        scores = score(analysis, "l1")
        found = allocate(analysis, scores, [macs_limit(analysis, ratio)], method="heuristic", options={"rule": rule})
        assert found.reached, rule
        assert found.macs / analysis.macs >= ratio - 0.03, rule
    cut(analysis, "mean_std", ratio)


@pytest.mark.slow
@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize(("name", "ratio"), [("alexnet", 0.5), ("vgg16", 0.2253), ("resnet34", 0.5806)])
def test_budgets_are_met_at_full_size(name: str, ratio: float, rule: str) -> None:
    cut(analyze(exported(name, 224, cifar=False)), rule, ratio)
