"""Every criterion with every allocation that the catalogue calls compatible, on the digits network.

`make test` runs every allocation with two criteria and every criterion with two allocations; the rest is slow.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from espalier.demo_network import as_input, digits
from models_store import catalogue
from worker.engine.allocation import LatencyTable, Memory, allocate, macs_limit, measure_table
from worker.engine.allocation.latency_table import TimedLayer
from worker.engine.criteria import Calibration, Scores, score
from worker.engine.data import Dataset
from worker.engine.graph import Analysis, analyze
from worker.engine.proof import prove
from worker.engine.surgery import prune

RATIO = 0.5
CRITERIA = catalogue.catalogue().of_kind("criterion")
ALLOCATIONS = catalogue.catalogue().of_kind("allocation")
COMPATIBLE = [
    (criterion, allocation)
    for criterion in CRITERIA
    for allocation in ALLOCATIONS
    if not catalogue.conflicts([CRITERIA[criterion], ALLOCATIONS[allocation]], "labels")
]
SAMPLE = [pair for pair in COMPATIBLE if pair[0] in ("l2", "taylor") or pair[1] in ("uniform", "latency")]
REST = [pair for pair in COMPATIBLE if pair not in SAMPLE]
SHORT = {"evaluations": 6, "images": 60, "calibration_images": 32, "population": 4}
"""Options of searches and of what measures, as far as a method has them."""


@pytest.fixture(scope="module")
def table(digits_analysis: Analysis) -> LatencyTable:
    return measure_table(digits_analysis)


@pytest.fixture(scope="module")
def scored(digits_analysis: Analysis):
    """Scores by criterion, each worked out once."""
    data = digits()
    calibration = Calibration(as_input(data.x[:48]).numpy(), data.y[:48])
    return cache(lambda name: score(digits_analysis, name, calibration=calibration))


@pytest.fixture(scope="module")
def remembered():
    """What allocations measured for each criterion's scores."""
    return cache(lambda criterion: Memory())


def check(
    analysis: Analysis, dataset: Dataset, table: LatencyTable, scores: Scores, memory: Memory, allocation: str
) -> None:
    known = ALLOCATIONS[allocation].options.get("properties", {})
    options = {name: value for name, value in SHORT.items() if name in known}
    found = allocate(
        analysis,
        scores,
        [macs_limit(analysis, RATIO)],
        method=allocation,
        options=options,
        table=lambda: table,
        dataset=lambda: dataset,
        memory=memory,
    )
    assert found.reached
    assert found.macs / analysis.macs <= RATIO
    if "latency" not in ALLOCATIONS[allocation].uses:  # it gives nothing back that costs time, as measured here and now
        assert found.macs / analysis.macs >= (0.7 if allocation == "nsga2" else 0.8) * RATIO
    if "accuracy" in ALLOCATIONS[allocation].uses:
        assert found.search is not None
        assert len(found.search.evaluated) == SHORT["evaluations"]
        assert all(candidate.cost <= RATIO for candidate in found.search.evaluated)
    pruned = prune(analysis, found.plan)
    assert prove(analysis, found.plan, pruned, inputs_per_size=1).passed
    assert analyze(pruned).macs == found.macs


@pytest.mark.parametrize(("criterion", "allocation"), SAMPLE)
def test_the_budget_is_met_and_the_cut_is_proved(
    digits_analysis: Analysis,
    digits_dataset: Dataset,
    table: LatencyTable,
    scored,
    remembered,
    criterion: str,
    allocation: str,
) -> None:
    check(digits_analysis, digits_dataset, table, scored(criterion), remembered(criterion), allocation)


@pytest.mark.slow
@pytest.mark.parametrize(("criterion", "allocation"), REST)
def test_so_it_is_with_every_other_pair(
    digits_analysis: Analysis,
    digits_dataset: Dataset,
    table: LatencyTable,
    scored,
    remembered,
    criterion: str,
    allocation: str,
) -> None:
    check(digits_analysis, digits_dataset, table, scored(criterion), remembered(criterion), allocation)


def in_blocks(table: LatencyTable) -> LatencyTable:
    """Times that do not follow MACs, and are the same whatever else this machine does: a block of eight inputs and
    outputs costs alike in every layer, however large its images are, and each layer costs something."""

    def times(layer: TimedLayer) -> np.ndarray:
        inputs, outputs = (-(-np.array(axis.grid) // 8) for axis in (layer.inputs, layer.outputs))
        return np.add(0.5, np.outer(inputs, outputs)[:, : layer.times.shape[1]])

    layers = tuple(replace(layer, times=times(layer), parts=()) for layer in table.layers)
    return replace(table, layers=layers, rest=0.0)


@pytest.mark.parametrize("ratio", [0.7, 0.5, 0.3])
@pytest.mark.parametrize("criterion", ["l2", "random"])
def test_widths_chosen_by_time_are_faster_than_uniform_ones_where_time_does_not_follow_macs(
    digits_analysis: Analysis, table: LatencyTable, scored, criterion: str, ratio: float
) -> None:
    """At the same budget of MACs, by the same table of layer times."""
    table = in_blocks(table)
    times = {}
    for allocation in ("uniform", "latency"):
        found = allocate(
            digits_analysis,
            scored(criterion),
            [macs_limit(digits_analysis, ratio)],
            method=allocation,
            table=lambda: table,
        )
        assert found.reached
        times[allocation] = float(table.cost(found.plan.counts(digits_analysis)))
    assert times["latency"] < times["uniform"]
