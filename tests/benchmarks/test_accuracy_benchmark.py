"""The accuracy benchmark's parts: the two forms of a base compute the same, and claims say what the rows do."""

import torch

from benchmarks.accuracy_bases import with_convolution_shortcuts
from benchmarks.accuracy_report import claims, is_among_best
from benchmarks.cifar_resnet import CifarResNet, OptionA


def test_option_b_computes_exactly_what_option_a_does():
    torch.manual_seed(0)
    network, images = CifarResNet(2).eval(), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
        network = with_convolution_shortcuts(network)
        assert not any(isinstance(module, OptionA) for module in network.modules())
        assert torch.equal(network(images), expected)


def row(cut, bn, **more):
    return {"macs_ratio": 0.5, "top1": {"cut": cut, "bn": bn, **more}}


ROWS = {
    "resnet56/option_b/ours/refit, global/2x/seed 0": row(0.5, 0.8, reconstructed=0.88),
    "resnet56/option_b/ours/refit, global/2x/seed 1": row(0.5, 0.8, reconstructed=0.86),
    "resnet56/option_b/ours/l2, uniform/2x/seed 0": row(0.1, 0.3, reconstructed=0.8),
    "resnet56/option_a/ours/refit, global/2x/seed 0": row(0.5, 0.8, reconstructed=0.89),
    "resnet56/option_b/torch-pruning/LAMP, global/2x/seed 0": row(0.4, 0.82) | {"trained": {"3": 0.89}},
}


def test_the_loss_without_finetuning_is_compared_by_the_mean_over_seeds():
    found = {claim.name: claim for claim in claims({"resnet56": 0.9}, ROWS)}
    claim = next(claim for name, claim in found.items() if name.startswith("resnet56 at 2x") and "no fine" in name)
    assert claim.value.startswith("3.00 against 8.00")
    assert claim.holds
    worse = ROWS | {"resnet56/option_b/torch-pruning/FPGM, uniform/2x/seed 0": row(0.4, 0.85)}
    claim = next(c for c in claims({"resnet56": 0.9}, worse) if c.name == claim.name)
    assert claim.value.startswith("3.00 against 5.00")
    assert not claim.holds


def test_what_is_not_measured_does_not_hold():
    unmeasured = [claim for claim in claims({"resnet56": 0.9}, ROWS) if claim.value == "not measured yet"]
    assert len(unmeasured) == 11
    assert not any(claim.holds for claim in unmeasured)


def test_the_best_of_each_side_are_trained():
    assert is_among_best("resnet56/option_b/ours/refit, global/2x/seed 0", ROWS)
    many = ROWS | {f"resnet56/option_b/ours/method {i}/2x/seed 0": row(0.1, 0.9) for i in range(3)}
    assert not is_among_best("resnet56/option_b/ours/refit, global/2x/seed 0", many)
