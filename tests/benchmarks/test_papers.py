"""What the run of paper 2 claims, and that its steps build on each other."""

from typing import Any

from benchmarks.paper_random_masks import STEPS, claims

BASE = {"error": 0.10, "conv_weights": 1000}


def _row(name: str, kept: int, error: float, **changes: Any) -> dict[str, Any]:
    return {"name": name, "of": "maps", "selection": "random", "conv_weights": kept, "error": error, **changes}


def test_the_claim_is_the_best_network_with_enough_removed() -> None:
    rows = [_row("a", 140, 0.108), _row("b", 100, 0.115), _row("c", 200, 0.09), _row("d", 90, 0.05, selection="l1")]
    (claim,) = claims({"base": BASE, "rows": rows})
    assert claim.value == "86.0%; +0.80 points"
    assert claim.holds
    (claim,) = claims({"base": BASE, "rows": rows[1:]})
    assert claim.value == "90.0%; +1.50 points"
    assert not claim.holds
    assert claims({"base": BASE, "rows": rows[2:]}) == []


def test_the_l1_vote_at_the_same_counts_stands_beside_it() -> None:
    best = _row("random both 45% 55%", 140, 0.108)
    votes = [
        _row(f"l1 both {shares}", 140, error, selection="l1")
        for shares, error in (("45% 70%", 0.2), ("45% 55%", 0.104))
    ]
    (claim,) = claims({"base": BASE, "rows": [best, *votes]})
    assert claim.value == "86.0%; +0.80 points (the L1 vote at the same counts: +0.40 points)"
    assert claim.holds
    assert best["name"].replace("random", "l1") in {step.name for step in STEPS}


def test_every_step_starts_from_one_before_it() -> None:
    known = {"base"}
    for step in STEPS:
        assert step.of in known
        known.add(step.name)
    assert len(known) == len(STEPS) + 1
