"""Every criterion with every allocation that the catalogue calls compatible, on the digits network."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from espalier.demo_network import as_input, digits, export, train
from models_store import catalogue
from worker.engine.allocation import LatencyTable, allocate, macs_limit, measure_table
from worker.engine.criteria import Calibration, Scores, score
from worker.engine.graph import Analysis, analyze, load_model
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


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    path: Path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    export(train(digits(), epochs=1), path)
    return analyze(load_model(path))


@pytest.fixture(scope="module")
def table(analysis: Analysis) -> LatencyTable:
    return measure_table(analysis)


@pytest.fixture(scope="module")
def scored(analysis: Analysis):
    """Scores by criterion, each worked out once."""
    data = digits()
    calibration = Calibration(as_input(data.x[:48]).numpy(), data.y[:48])
    return cache(lambda name: score(analysis, name, calibration=calibration))


@pytest.mark.parametrize(("criterion", "allocation"), COMPATIBLE)
def test_the_budget_is_met_and_the_cut_is_proved(
    analysis: Analysis, table: LatencyTable, scored, criterion: str, allocation: str
) -> None:
    scores: Scores = scored(criterion)
    found = allocate(analysis, scores, [macs_limit(analysis, RATIO)], method=allocation, table=lambda: table)
    assert found.reached
    assert found.macs / analysis.macs <= RATIO
    if "latency" not in ALLOCATIONS[allocation].uses:  # it gives nothing back that costs time, as measured here and now
        assert found.macs / analysis.macs >= 0.8 * RATIO
    pruned = prune(analysis, found.plan)
    assert prove(analysis, found.plan, pruned, inputs_per_size=1).passed
    assert analyze(pruned).macs == found.macs
