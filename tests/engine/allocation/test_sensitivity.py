"""Rates by measured sensitivity: sensitive layers keep more, the others less."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import convnet
from worker.engine.allocation import Memory, allocate, latency_limit, macs_limit, measure_table
from worker.engine.allocation import sensitivity as by_sensitivity
from worker.engine.allocation.sensitivity import _affordable
from worker.engine.criteria import score
from worker.engine.data import Dataset
from worker.engine.graph import Analysis, analyze
from worker.engine.probe import Objective, Probe, Sensitivity, measure_sensitivity, some_noise
from worker.engine.probe.replay import Replay


@pytest.mark.parametrize("rule", ["equal", "knapsack"])
def test_the_layer_that_hardly_matters_goes_first(rule: str) -> None:
    """The first convolution's second half of filters is all but silent; every filter of the second one counts."""
    model = convnet(width=64)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    first = np.frombuffer(weights["conv0.weight"].raw_data, np.float32).reshape(64, 3, 3, 3).copy()
    first[8:] *= 1e-4
    weights["conv0.weight"].raw_data = first.tobytes()
    analysis = analyze(model)
    # Scores that know nothing of it: the same for all filters of a layer but for their order.
    scores = {group.id: np.linspace(1.0, 0.9, len(group)) for group in analysis.groups}
    found = allocate(
        analysis, scores, [macs_limit(analysis, 0.3)], method="sensitivity", options={"rule": rule}, round_to=1
    )
    assert found.reached
    kept = [float(found.plan.kept[group.id].mean()) for group in analysis.groups]
    assert kept[0] < 0.5 * kept[1]


def test_the_knapsack_takes_more_where_a_channel_costs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three widths that lose alike: two wide convolutions read or make the second one's channels, one the third's."""
    analysis = analyze(convnet(width=64, depth=3))
    shares = (0.875, 0.75, 0.5, 0.25, 0.125)
    units, loss = tuple(int(64 * share) for share in shares), tuple((1 - share) ** 2 for share in shares)
    alike = tuple(Sensitivity(width, units, loss, None) for width in range(len(analysis.widths)))
    monkeypatch.setattr(by_sensitivity, "_measured", lambda problem, images: alike)
    scores = {group.id: np.linspace(1.0, 0.9, len(group)) for group in analysis.groups}
    kept = {}
    for rule in ("equal", "knapsack"):
        limits = [macs_limit(analysis, 0.4)]
        found = allocate(analysis, scores, limits, method="sensitivity", options={"rule": rule}, round_to=1)
        assert found.reached
        kept[rule] = [float(found.plan.kept[group.id].mean()) for group in analysis.groups]
    assert max(kept["equal"]) - min(kept["equal"]) < 0.05
    assert kept["knapsack"][1] < 0.8 * kept["knapsack"][2]


def test_what_layers_lose_alone_is_about_equal(digits_analysis: Analysis) -> None:
    scores = score(digits_analysis, "l2")
    found = allocate(digits_analysis, scores, [macs_limit(digits_analysis, 0.4)], method="sensitivity", round_to=1)
    probe = Probe(digits_analysis, some_noise(digits_analysis, 4))
    losses = []
    for groups in digits_analysis.widths:
        (group,) = groups
        share = float(found.plan.kept[group].mean())
        (alone,) = measure_sensitivity(digits_analysis, scores, probe, [share])[group : group + 1]
        losses.append(alone.loss[0] if alone.loss else 0.0)
    assert max(losses) < 3 * np.median(losses)
    uniform = [alone.loss[0] for alone in measure_sensitivity(digits_analysis, scores, probe, [0.63])]
    assert max(losses) / np.median(losses) < max(uniform) / np.median(uniform)


def test_a_dataset_is_used_where_there_is_one_and_measured_once(
    digits_analysis: Analysis, digits_dataset: Dataset
) -> None:
    scores, memory, told = score(digits_analysis, "l2"), Memory(), []
    for ratio in (0.5, 0.3):
        found = allocate(
            digits_analysis,
            scores,
            [macs_limit(digits_analysis, ratio)],
            method="sensitivity",
            dataset=lambda: digits_dataset,
            on_progress=told.append,
            memory=memory,
        )
    assert told.count(1.0) == 1
    worth = Objective(digits_analysis, digits_dataset, images=200, calibration_images=64)
    uniform = allocate(digits_analysis, scores, [macs_limit(digits_analysis, 0.3)])
    assert worth(found.plan).gain > worth(uniform.plan).gain - 0.1


@pytest.mark.parametrize("round_to", [1, 8])
def test_a_latency_budget_is_met_although_no_step_of_part_of_a_block_gains_any(round_to: int) -> None:
    analysis = analyze(convnet(width=64))
    table = measure_table(analysis)
    found = allocate(
        analysis,
        score(analysis, "l2"),
        [latency_limit(table, 0.6)],
        method="sensitivity",
        options={"rule": "knapsack"},
        round_to=round_to,
        table=lambda: table,
    )
    assert found.reached


@pytest.mark.parametrize("rule", ["equal", "knapsack"])
def test_a_network_that_is_silent_on_the_images_is_cut_all_the_same(rule: str) -> None:
    """Its outputs are zero until something is removed: no change is a share of them."""
    b = GraphBuilder()
    x = b.input(("batch", 3, 8, 8))
    half = np.abs(np.random.default_rng(0).normal(size=(8, 3, 3, 3)))
    filters = np.concatenate([half, half]).astype(np.float32)  # 16 channels, of which the second half undoes the first
    maps = b.node("Relu", b.node("Conv", x, b.constant(filters), pads=[1, 1, 1, 1]))
    flat = b.node("Flatten", b.node("GlobalAveragePool", maps))
    against = np.repeat([1.0, -1.1], 8).astype(np.float32)[:, None] * np.ones((16, 4), np.float32)
    analysis = analyze(b.model(b.node("Relu", b.node("MatMul", flat, b.constant(against)))))
    scores = {0: np.repeat([2.0, 1.0], 8)}  # what undoes the rest goes first
    found = allocate(
        analysis, scores, [macs_limit(analysis, 0.5)], method="sensitivity", options={"rule": rule}, round_to=1
    )
    assert found.reached


@pytest.mark.parametrize("rule", ["equal", "knapsack"])
def test_a_layer_without_which_nothing_but_nan_is_left_stays(rule: str) -> None:
    """Maps are divided by their own largest value: behind a channel that goes there is zero over zero."""
    g = GraphBuilder(17, seed=0)
    maps = g.node("Abs", g.conv(g.input(("n", 3, 8, 8)), 3, 16))
    apart = g.node("Conv", maps, g.constant(np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)))
    scaled = g.node("Div", apart, g.node("ReduceMax", apart, axes=[2, 3], keepdims=1))
    analysis = analyze(g.model(g.node("Flatten", g.node("GlobalAveragePool", g.conv(scaled, 16, 4)))))
    scores, warnings = score(analysis, "l2"), []
    found = allocate(
        analysis,
        scores,
        [macs_limit(analysis, 0.7)],
        method="sensitivity",
        options={"rule": rule},
        round_to=1,
        on_warning=warnings.append,
    )
    assert found.reached
    assert [bool(found.plan.kept[group.id].all()) for group in analysis.groups] == [True, False]
    assert warnings == []
    (lost, _) = measure_sensitivity(analysis, scores, Probe(analysis, some_noise(analysis, 4)), (0.5,))
    assert lost.loss == pytest.approx((1.0,))


@pytest.mark.parametrize(("side", "expected"), [(8, 64), (64, 16), (256, 8)])
def test_a_large_network_is_run_on_fewer_images(side: int, expected: int) -> None:
    b = GraphBuilder()
    x = b.node("Relu", b.conv(b.input((1, 64, side, side)), 64, 1024))
    for _ in range(2):
        x = b.node("Relu", b.conv(x, 1024, 1024))
    analysis = analyze(b.model(b.conv(x, 1024, 4)))
    assert len(analysis.widths) == 3
    assert _affordable(analysis, 64) == expected  # at 64 x 64: 79.9 GMACs, times 3 widths at 5 ratios, halved
    assert _affordable(analysis, 1) == 1


def test_a_network_that_torch_cannot_run_is_judged_by_its_scores_and_says_so() -> None:
    model = convnet(width=64)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "SampleOp", "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)
    analysis, told = analyze(model), list[str]()
    limits = [macs_limit(analysis, 0.5)]
    found = allocate(analysis, score(analysis, "l2"), limits, method="sensitivity", round_to=1, on_warning=told.append)
    assert found.reached
    assert [text.partition(":")[0] for text in told] == [
        "Sensitivity is judged by the shares of importance that go, not measured"
    ]


@pytest.mark.parametrize("data", [True, False])
def test_means_are_left_where_a_recovery_gives_them_back(
    digits_analysis: Analysis, digits_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, data: bool
) -> None:
    asked = []
    monkeypatch.setattr(Replay, "means", lambda replay: asked.append(replay) or {})
    allocate(
        digits_analysis,
        score(digits_analysis, "l2"),
        [macs_limit(digits_analysis, 0.5)],
        method="sensitivity",
        dataset=(lambda: digits_dataset) if data else (lambda: None),
    )
    assert bool(asked) is data
