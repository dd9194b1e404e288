"""What is said of a limit that no widths keep, and that what it says to set is what it takes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import convnet
from worker.engine.allocation import Allocation, allocate, macs_limit, params_limit
from worker.engine.criteria import score
from worker.engine.errors import EngineError
from worker.engine.graph import Analysis, analyze


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(convnet(width=64))


def _allocated(analysis: Analysis, ratio: float, **options: float) -> Allocation:
    limits = [macs_limit(analysis, ratio), params_limit(analysis, 1.0)]
    return allocate(analysis, score(analysis, "l2"), limits, **options)  # type: ignore[arg-type]


def _set_to(reason: str) -> dict[str, float]:
    found = re.findall(r"pruning\.(round_to|min_ratio) to ([\d.]+)", reason)
    return {name: int(value) if name == "round_to" else float(value) for name, value in found}


@pytest.mark.parametrize(
    ("ratio", "options", "to_set"),
    [
        (0.06, {"round_to": 16, "min_ratio": 0.05}, {"round_to"}),
        (0.06, {"round_to": 1, "min_ratio": 0.5}, {"min_ratio"}),
        (0.5, {"round_to": 8, "min_ratio": 1.0}, {"min_ratio"}),
        (0.01, {"round_to": 16, "min_ratio": 0.5}, {"round_to", "min_ratio"}),
    ],
)
def test_the_options_that_it_says_to_set_reach_the_goal(
    analysis: Analysis, ratio: float, options: dict[str, float], to_set: set[str]
) -> None:
    found = _allocated(analysis, ratio, **options)
    line, other = found.lines
    assert not line.reached
    assert "cannot be pruned" not in line.reason
    assert (other.reached, other.reason) == (True, "")
    advice = _set_to(line.reason)
    assert advice.keys() == to_set, line.reason
    reached = _allocated(analysis, ratio, **{**options, **advice})
    assert reached.reached, (advice, reached.lines)


def test_what_one_channel_everywhere_costs_is_told_where_even_that_is_too_much(analysis: Analysis) -> None:
    found = _allocated(analysis, 1e-6)
    least = int(analysis.costs.macs(analysis.full * 0 + 1)) / analysis.macs
    assert _set_to(found.lines[0].reason) == {}
    assert found.lines[0].reason.endswith(f"with 1 and 0 {least:.2%} would remain")


def test_shares_are_of_the_original_where_earlier_rounds_pruned(analysis: Analysis) -> None:
    limit = replace(macs_limit(analysis, 1e-6), left=0.5)
    (line,) = allocate(analysis, score(analysis, "l2"), [limit]).lines
    least = int(analysis.costs.macs(analysis.full * 0 + 1)) / analysis.macs
    assert line.reason.endswith(f"with 1 and 0 {least / 2:.2%} would remain")


def test_pinned_layers_are_blamed_for_what_they_cost() -> None:
    g = GraphBuilder()
    inner = g.node("Relu", g.conv(g.input(("n", 3, 8, 8)), 3, 4))
    analysis = analyze(g.model(g.conv(inner, 4, 64)))
    found = _allocated(analysis, 0.01, round_to=1, min_ratio=0.0)
    pinned = analysis.layers_under(analysis.full * 0 + 1)[1].macs / analysis.macs
    assert f"{pinned:.2%} in layers that cannot be pruned" in found.lines[0].reason
    assert "round_to" not in found.lines[0].reason


def test_a_model_without_prunable_layers_says_so() -> None:
    g = GraphBuilder()
    analysis = analyze(g.model(g.conv(g.input(("n", 3, 8, 8)), 3, 8)))
    line, other = _allocated(analysis, 0.5).lines
    assert "no layer of this model can be pruned" in line.reason
    assert other.reason == ""


def test_a_model_without_macs_has_nothing_to_prune() -> None:
    g = GraphBuilder()
    analysis = analyze(g.model(g.node("Relu", g.input(("n", 3, 8, 8)))))
    with pytest.raises(EngineError, match="nothing to prune") as raised:
        _allocated(analysis, 0.5)
    assert raised.value.code == "nothing_to_prune"
