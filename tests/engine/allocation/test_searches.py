"""Searches for an allocation: all candidates keep the budget, a seed finds the same again, test images stay unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.worker.networks import convnet
from worker.engine.allocation import Allocation, Memory, allocate, macs_limit, params_limit
from worker.engine.criteria import Scores, score
from worker.engine.data import Dataset
from worker.engine.errors import EngineError
from worker.engine.graph import Analysis, analyze
from worker.engine.probe import Objective, Value, objective
from worker.engine.surgery import Plan

SEARCHES = ("evolutionary", "particle_swarm", "tpe", "cma_es", "nsga2")
SHORT = {"evaluations": 10, "images": 120, "calibration_images": 48}


@pytest.fixture(scope="module")
def scores(digits_analysis: Analysis) -> Scores:
    return score(digits_analysis, "l2")


@pytest.fixture(scope="module")
def blind(digits_dataset: Dataset) -> Dataset:
    """Without the test images: whoever looked at them would fail."""
    return replace(digits_dataset, test=None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def search(digits_analysis: Analysis, scores: Scores, blind: Dataset):
    memory = Memory()

    def search(method: str, seed: int = 0, **options: Any) -> Allocation:
        limits = [macs_limit(digits_analysis, 0.3), params_limit(digits_analysis, 0.5)]
        chosen = options or SHORT
        return allocate(
            digits_analysis,
            scores,
            limits,
            method=method,
            options=chosen,
            seed=seed,
            dataset=lambda: blind,
            memory=memory,
        )

    return search


@pytest.mark.parametrize("method", SEARCHES)
def test_all_candidates_keep_the_budget_and_the_best_is_taken(
    digits_analysis: Analysis, blind: Dataset, search, method: str
) -> None:
    found = search(method)
    assert found.reached
    assert found.search is not None
    seen = found.search.evaluated
    assert len(seen) == SHORT["evaluations"]
    assert found.search.images == min(SHORT["images"], len(blind.validation))
    assert all(each.cost <= 0.3 for each in seen)
    assert len({each.widths for each in seen}) > 3
    best = seen[found.search.best]
    assert best.top1 == max(each.top1 for each in seen)
    assert best.top1 >= seen[0].top1  # the first is the same ratio everywhere
    kept = np.array([int(mask.sum()) for mask in found.plan.kept.values()])
    np.testing.assert_array_equal(kept, best.widths)
    again = Objective(digits_analysis, blind, images=SHORT["images"], calibration_images=SHORT["calibration_images"])
    assert again(found.plan).top1 == best.top1


def closeness(analysis: Analysis) -> Callable[[Objective, Plan], Value]:
    """What networks are worth: the more, the closer their widths are to certain shares."""
    wanted = np.linspace(0.2, 1.0, len(analysis.widths))

    def worth(_: Objective, plan: Plan) -> Value:
        shares = [np.concatenate([plan.kept[g] for g in groups]).mean() for groups in analysis.widths]
        return Value(1 - float(np.abs(shares - wanted).mean()), 0.0)

    return worth


@pytest.mark.parametrize("method", SEARCHES)
def test_a_search_learns_from_what_it_saw(
    digits_analysis: Analysis, search, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Candidates become better, which those of a lot do not."""
    monkeypatch.setattr(Objective, "__call__", closeness(digits_analysis))
    options = {"evaluations": 90, "images": 20, "calibration_images": 4}
    more = {} if method == "tpe" else {"population": 10}
    gains = []
    for seed in (0, 1, 2):
        seen = [each.top1 for each in search(method, seed, **options, **more).search.evaluated]
        gains.append(np.mean(seen[-30:]) - np.mean(seen[2:12]))
    assert np.mean(gains) > 0.04, gains


def test_particles_are_drawn_to_their_own_best_places(
    digits_analysis: Analysis, search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "__call__", closeness(digits_analysis))
    options = {"evaluations": 90, "images": 20, "calibration_images": 4, "population": 10, "swarm": 0.0, "own": 4.0}
    seen = [each.top1 for each in search("particle_swarm", 1, **options).search.evaluated]
    assert np.mean(seen[-30:]) > np.mean(seen[2:12]) + 0.01


def test_nsga2_looks_for_cheaper_ones_among_equals(search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objective, "__call__", lambda _, plan: Value(0.5, 0.0))
    options = {"evaluations": 90, "images": 20, "calibration_images": 4, "population": 10}
    costs = [each.cost for each in search("nsga2", 0, **options).search.evaluated]
    assert np.mean(costs[-30:]) < 0.9 * np.mean(costs[2:12])


@pytest.mark.parametrize("method", SEARCHES)
def test_the_same_seed_finds_the_same(search, method: str) -> None:
    options = {"evaluations": 6, "images": 60, "calibration_images": 32}
    first, second, other = (search(method, seed, **options).search.evaluated for seed in (3, 3, 4))
    assert first == second
    assert [each.widths for each in first] != [each.widths for each in other]


@pytest.mark.parametrize("method", SEARCHES)
@pytest.mark.parametrize("ratio", [0.3, 0.5])
def test_a_search_begins_with_uniform_and_global(
    digits_analysis: Analysis, scores: Scores, blind: Dataset, method: str, ratio: float
) -> None:
    """So that what it finds is at least as good as these."""
    limits, options = [macs_limit(digits_analysis, ratio)], {"evaluations": 2, "images": 20, "calibration_images": 8}
    found = allocate(digits_analysis, scores, limits, method=method, options=options, dataset=lambda: blind)
    assert found.search is not None
    for candidate, simple in zip(found.search.evaluated, ("uniform", "global"), strict=True):
        plan = allocate(digits_analysis, scores, limits, method=simple).plan
        assert candidate.widths == tuple(int(mask.sum()) for mask in plan.kept.values()), simple


def test_progress_is_told(digits_analysis: Analysis, scores: Scores, blind: Dataset) -> None:
    told: list[float] = []
    limits = [macs_limit(digits_analysis, 0.5)]
    allocate(
        digits_analysis,
        scores,
        limits,
        method="evolutionary",
        options={"evaluations": 4, "images": 40, "calibration_images": 16, "population": 2},
        dataset=lambda: blind,
        on_progress=told.append,
    )
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_candidates_whose_norms_cannot_be_taken_anew_are_judged_as_they_are(
    digits_analysis: Analysis, scores: Scores, blind: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = partial(objective.calibration_batches, max_held_bytes=1000)
    monkeypatch.setattr(objective, "calibration_batches", little)
    told: list[str] = []
    found = allocate(
        digits_analysis,
        scores,
        [macs_limit(digits_analysis, 0.5)],
        method="evolutionary",
        options={"evaluations": 3, "images": 40, "calibration_images": 16, "population": 2},
        dataset=lambda: blind,
        on_warning=told.append,
    )
    assert found.search is not None
    assert len(found.search.evaluated) == 3
    assert "norms as they are" in told[0]
    plain = Objective(digits_analysis, blind, images=40, calibration_images=0)
    assert plain(found.plan).top1 == found.search.evaluated[found.search.best].top1


def test_a_search_without_data_is_refused() -> None:
    analysis = analyze(convnet())
    with pytest.raises(EngineError, match="labelled images"):
        allocate(analysis, score(analysis, "l1"), [macs_limit(analysis, 0.5)], method="tpe")
