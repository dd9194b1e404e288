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


OPTION_B, BEST_OURS, BEST_PEER = "resnet56/option_b", "refit, global", "LAMP, global"
METHODS = {"ours": (BEST_OURS, "l2, uniform"), "torch-pruning": (BEST_PEER, "FPGM, uniform")}
ROWS = {
    f"{OPTION_B}/ours/l2, uniform/2x/seed 0": row(0.1, 0.3, reconstructed=0.8),
    f"{OPTION_B}/torch-pruning/FPGM, uniform/2x/seed 0": row(0.1, 0.2),
    f"{OPTION_B}/ours/{BEST_OURS}/2x/seed 0": row(0.5, 0.8, reconstructed=0.88),
    f"{OPTION_B}/ours/{BEST_OURS}/2x/seed 1": row(0.5, 0.8, reconstructed=0.86),
    f"resnet56/option_a/ours/{BEST_OURS}/2x/seed 0": row(0.5, 0.8, reconstructed=0.89),
    f"{OPTION_B}/torch-pruning/{BEST_PEER}/2x/seed 0": row(0.4, 0.82) | {"trained": {"3": {"0.02": 0.89}}},
}


def without_finetuning(rows):
    found = claims({"resnet56": 0.9}, rows, METHODS)
    return next(claim for claim in found if claim.name.startswith("resnet56 at 2x") and "no fine" in claim.name)


def test_the_loss_without_finetuning_is_compared_by_the_mean_over_seeds():
    assert without_finetuning(ROWS).value.startswith("3.00 against 8.00")
    assert without_finetuning(ROWS).holds
    worse = without_finetuning(ROWS | {f"{OPTION_B}/torch-pruning/FPGM, uniform/2x/seed 0": row(0.4, 0.85)})
    assert worse.value.startswith("3.00 against 5.00")
    assert not worse.holds


def test_the_best_of_a_part_of_their_methods_proves_nothing():
    part = {key: value for key, value in ROWS.items() if "FPGM" not in key}
    assert without_finetuning(part).value.endswith("Torch-Pruning without FPGM, uniform")
    assert not without_finetuning(part).holds
    assert without_finetuning({key: value for key, value in ROWS.items() if "l2, uniform" not in key}).holds


def test_after_training_the_best_is_compared_with_the_best_of_several_of_theirs():
    def claim(rows):
        return next(
            c for c in claims({"resnet56": 0.9}, rows, METHODS) if c.name.startswith("resnet56 at 2x fewer MACs, after")
        )

    ours = f"{OPTION_B}/ours/{BEST_OURS}/2x/seed 0"
    one = ROWS | {ours: ROWS[ours] | {"trained": {"3": {"0.02": 0.895}}}}
    assert claim(one).value == f"+0.50 points: {BEST_OURS} (of 1 trained) against {BEST_PEER} (of 1 trained)"
    assert not claim(one).holds
    other = f"{OPTION_B}/torch-pruning/FPGM, uniform/2x/seed 0"
    assert claim(one | {other: ROWS[other] | {"trained": {"3": {"0.02": 0.891}}}}).holds
    assert not claim(one | {other: ROWS[other] | {"trained": {"3": {"0.02": 0.893}}}}).holds


def test_one_seed_is_no_match_for_the_mean_of_several():
    ours = f"{OPTION_B}/ours/{BEST_OURS}/2x/seed"
    rows = ROWS | {f"{ours} {seed}": row(0.5, 0.8) | {"trained": {"3": {"0.02": 0.88 + seed / 50}}} for seed in (0, 1)}
    lucky = rows | {f"{OPTION_B}/ours/l2, uniform/2x/seed 0": row(0.1, 0.3) | {"trained": {"3": {"0.02": 0.93}}}}
    values = [claims({"resnet56": 0.9}, each, METHODS)[6 + 2].value for each in (rows, lucky)]
    compared = f"against {BEST_PEER} (of 1 trained); the mean of 2 against 1 seeds"
    assert values == [f"+0.00 points: {BEST_OURS} (of {count} trained) {compared}" for count in (1, 2)]


def test_nor_is_a_rate_that_one_seed_had():
    ours, theirs = f"{OPTION_B}/ours/{BEST_OURS}/2x/seed", f"{OPTION_B}/torch-pruning/{BEST_PEER}/2x/seed 0"
    trained = {
        f"{ours} 0": {"0.02": 0.88, "0.05": 0.93},
        f"{ours} 1": {"0.02": 0.9},
        theirs: {"0.02": 0.89, "0.05": 0.87},
    }
    rows = ROWS | {key: row(0.5, 0.8) | {"trained": {"3": rates}} for key, rates in trained.items()}
    assert claims({"resnet56": 0.9}, rows, METHODS)[6 + 2].value.startswith("+0.00 points")


def test_trainings_with_a_teacher_are_compared_with_each_other():
    keys = [f"{OPTION_B}/ours/{BEST_OURS}", f"{OPTION_B}/torch-pruning/{BEST_PEER}"]
    ours, theirs = (f"{key}/2x/seed 0" for key in keys)
    other = f"{OPTION_B}/torch-pruning/FPGM, uniform/2x/seed 0"

    def found(way, rows):
        name = f"resnet56 at 2x fewer MACs, after 3 epochs{way}: accuracy above Torch-Pruning's"
        return [claim.value for claim in claims({"resnet56": 0.9}, rows, METHODS) if claim.name == name]

    taught = {"taught": {"3": {"0.02": 0.9}}}
    plain = {"trained": {"3": {"0.02": 0.88}}}
    rows = ROWS | {theirs: row(0.4, 0.8) | plain, other: row(0.4, 0.8) | {"trained": {"3": {"0.02": 0.87}}}}
    one_side = rows | {ours: ROWS[ours] | plain | taught}
    both = one_side | {theirs: rows[theirs] | {"taught": {"3": {"0.02": 0.89}}}}
    compared = f"{BEST_OURS} (of 1 trained) against {BEST_PEER}"
    for measured in (one_side, both):
        assert found("", measured) == [f"+0.00 points: {compared} (of 2 trained)"]
    assert found(", both taught by the original, too", one_side) == []
    assert found(", both taught by the original, too", both) == [f"+1.00 points: {compared} (of 1 trained)"]


def test_learning_rates_that_one_side_alone_was_given_do_not_count():
    ours, rival, other = (
        f"{OPTION_B}/{method}/2x/seed 0"
        for method in (f"ours/{BEST_OURS}", f"torch-pruning/{BEST_PEER}", "torch-pruning/FPGM, uniform")
    )

    def claim(*trained):
        found = {
            key: ROWS[key] | {"trained": {"3": each}} for key, each in zip((ours, rival, other), trained, strict=True)
        }
        return claims({"resnet56": 0.9}, ROWS | found, METHODS)[6 + 2]

    alone = claim({"0.02": 0.89, "0.05": 0.92}, {"0.02": 0.885}, {"0.02": 0.88})
    assert alone.value == f"+0.50 points: {BEST_OURS} (of 1 trained) against {BEST_PEER} (of 2 trained)"
    assert alone.holds
    both = claim({"0.02": 0.89, "0.05": 0.92}, {"0.02": 0.885, "0.05": 0.9}, {"0.02": 0.88, "0.05": 0.91})
    assert both.value.startswith("+1.00 points: refit, global (of 1 trained) against FPGM, uniform (of 2 trained)")
    assert both.value.endswith("the better of the rates 0.02 and 0.05 for each")
    # A rate that one method of theirs alone had is left out while another rate has more of them.
    assert claim({"0.02": 0.89, "0.05": 0.92}, {"0.02": 0.885, "0.05": 0.9}, {"0.02": 0.88}).value == alone.value
    assert not claim({"0.05": 0.92}, {"0.05": 0.9}, {}).holds


def test_a_learning_rate_with_fewer_seeds_neither_counts_nor_is_told():
    ours, rival = (f"{OPTION_B}/{each}" for each in (f"ours/{BEST_OURS}", f"torch-pruning/{BEST_PEER}"))
    rows = ROWS | {
        f"{key}/2x/seed {seed}": row(0.6, 0.8) | {"taught": {"3": rates}}
        for key, by_seed in {
            ours: ({"0.01": 0.95, "0.02": 0.90}, {"0.02": 0.90}),
            rival: ({"0.01": 0.80, "0.02": 0.89}, {"0.02": 0.89}),
        }.items()
        for seed, rates in enumerate(by_seed)
    }
    (claim,) = (each for each in claims({"resnet56": 0.9}, rows, METHODS) if "taught" in each.name)
    compared = f"{BEST_OURS} (of 1 trained) against {BEST_PEER} (of 1 trained)"
    assert claim.value == f"+1.00 points: {compared}; the mean of 2 seeds"


def test_what_is_not_measured_does_not_hold():
    unmeasured = [claim for claim in claims({"resnet56": 0.9}, ROWS, METHODS) if claim.value == "not measured yet"]
    assert len(unmeasured) == 11
    assert not any(claim.holds for claim in unmeasured)


def test_the_best_methods_of_each_side_are_trained():
    best = "resnet56/option_b/ours/refit, global/2x/seed"
    assert is_among_best(f"{best} 0", ROWS, 1)
    assert not is_among_best("resnet56/option_b/ours/l2, uniform/2x/seed 0", ROWS, 1)
    assert is_among_best("resnet56/option_b/ours/l2, uniform/2x/seed 0", ROWS, 2)
    # By the mean over the seeds: one lucky seed does not make a method the best.
    lucky = ROWS | {
        "resnet56/option_b/ours/lucky/2x/seed 0": row(0.1, 0.9),
        "resnet56/option_b/ours/lucky/2x/seed 1": row(0.1, 0.7),
    }
    assert is_among_best(f"{best} 0", lucky, 1)


def test_one_network_is_not_trained_twice_under_two_names():
    twice = ROWS | {
        f"resnet56/option_b/ours/the same/2x/seed {seed}": ROWS[f"{OPTION_B}/ours/{BEST_OURS}/2x/seed {seed}"]
        for seed in (0, 1)
    }
    assert is_among_best(f"{OPTION_B}/ours/{BEST_OURS}/2x/seed 0", twice, 2)
    assert not is_among_best("resnet56/option_b/ours/the same/2x/seed 0", twice, 2)
    assert is_among_best("resnet56/option_b/ours/l2, uniform/2x/seed 0", twice, 2)
