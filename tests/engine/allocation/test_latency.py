"""The latency table and the allocation that uses it, measured on a small network."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import convnet, fixed_batch, residual_network
from worker.engine.allocation import LatencyTable, allocate, latency_limit, macs_limit, measure_table, params_limit
from worker.engine.allocation.latency_table import Axis, TimedLayer
from worker.engine.criteria import score
from worker.engine.errors import EngineError
from worker.engine.graph import Analysis, analyze
from worker.engine.measure.layer_times import BLOCK, SET, LayerShape, layer_times
from worker.engine.proof import prove
from worker.engine.surgery import prune


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analyze(convnet(width=64, size=24))


@pytest.fixture(scope="module")
def table(analysis: Analysis) -> LatencyTable:
    return measure_table(analysis)


def test_every_layer_is_in_the_table(analysis: Analysis, table: LatencyTable) -> None:
    assert [analysis.graph.nodes[layer.node].op_type for layer in table.layers] == ["Conv", "Conv", "Gemm"]
    assert [(layer.inputs.whole, layer.outputs.whole) for layer in table.layers] == [(3, 64), (64, 64), (64, 4)]
    sides = len({BLOCK, 16, 32, 64})
    assert table.layers[1].times.shape == (sides, sides)
    assert all((layer.times > 0).all() for layer in table.layers)
    assert table.whole > 0


@pytest.mark.parametrize(("own", "taken"), [(1, 1), (4, 4), (None, 8)])
def test_a_fixed_batch_is_timed_at_its_own_size(own: int | None, taken: int) -> None:
    network = convnet(width=8)
    table = measure_table(analyze(fixed_batch(network, own) if own else network), batch=8)
    assert table.batch == taken
    assert [layer.shape.data[0] for layer in table.layers] == [taken] * 3


def test_a_batch_size_at_which_the_model_does_not_run_is_refused() -> None:
    g = GraphBuilder()
    one = g.node("Reshape", g.conv(g.input(("n", 3, 8, 8)), 3, 8), g.constant([1, 8, 8, 8]))
    with pytest.raises(EngineError, match="at batch size 32") as raised:
        measure_table(analyze(g.model(g.conv(one, 8, 4))), batch=32)
    assert raised.value.code == "batch_size_does_not_run"
    assert "latency_batch_size" in raised.value.hint


def test_a_narrower_network_is_estimated_faster(analysis: Analysis, table: LatencyTable) -> None:
    half = analysis.full // 4
    assert float(table.cost(half)) < table.whole
    many = np.stack([half, analysis.full])
    np.testing.assert_allclose(table.cost(many), [float(table.cost(half)), table.whole])


def test_times_between_the_grid_are_interpolated_by_whole_blocks() -> None:
    side = np.array([1])
    axis = Axis(fixed=0, multiplicity=side, whole=64, shares=(0.0, 0.5, 1.0))
    assert axis.grid == (BLOCK, 32, 64)
    times = np.array([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0], [4.0, 8.0, 16.0]])
    layer = TimedLayer(0, LayerShape("Conv", (1, 8, 8)), axis, axis, times)
    assert [float(layer.cost(np.array([kept]))) for kept in (BLOCK, 32, 64)] == [1.0, 4.0, 16.0]
    assert float(layer.cost(np.array([48]))) == pytest.approx(0.25 * (4 + 8 + 8 + 16))
    assert float(layer.cost(np.array([49 - BLOCK]))) == float(layer.cost(np.array([48])))  # a block is computed whole


def test_outputs_are_counted_in_sets_of_blocks() -> None:
    """A layer that takes a set of outputs at a time, and for 1, 2 and 3 blocks at the end 0.5, 0.7 and 0.8 of that."""
    one = SET * BLOCK
    inputs = Axis(fixed=8, multiplicity=np.array([0]), whole=8, shares=())
    outputs = Axis(fixed=0, multiplicity=np.array([1]), whole=4 * one, shares=(0.0, 0.5, 1.0))
    times = np.array([[0.5, 2.0, 4.0]])
    layer = TimedLayer(0, LayerShape("Conv", (1, 8, 8)), inputs, outputs, times, (0.5, 0.7, 0.8))
    for sets, blocks, expected in ((0, 1, 0.5), (0, 3, 0.8), (1, 0, 1.0), (1, 2, 1.7), (3, 1, 3.5), (4, 0, 4.0)):
        kept = np.array([sets * one + blocks * BLOCK])
        assert float(layer.cost(kept)) == pytest.approx(expected), (sets, blocks)
        assert float(layer.cost(kept - BLOCK + 1)) == pytest.approx(expected)  # a block is computed whole


def test_parts_of_sets_are_measured() -> None:
    wide = measure_table(analyze(convnet(width=8 * BLOCK, size=24)))
    parts = wide.layers[1].parts
    assert len(parts) == SET - 1
    assert 0 < parts[0] < parts[1] < parts[2] < 1
    assert wide.layers[2].parts == ()  # a matrix


def test_more_channels_take_longer() -> None:
    shape = LayerShape("Conv", (1, 32, 32), (3, 3), (("pads", (1, 1, 1, 1)),))
    few, many = layer_times(shape, [(16, 16), (128, 128)], 1)
    assert many > 4 * few


def test_depthwise_layers_have_one_width() -> None:
    (time,) = layer_times(LayerShape("Conv", (1, 16, 16), (3, 3), group=0, multiplier=2), [(16, 32)], 1)
    assert time > 0


def test_grouped_layers_become_cheaper_as_their_groups_become_narrower() -> None:
    """As in ResNeXt and RegNet: the groups stay, each of them with fewer inputs and outputs."""
    g = GraphBuilder(17, seed=0)
    x = g.node("Relu", g.conv(g.input((1, 3, 32, 32)), 3, 48))
    x = g.node("Relu", g.conv(x, 48, 96, group=6))
    analysis = analyze(g.model(g.conv(x, 96, 8, kernel=1)))
    table = measure_table(analysis)
    grouped = table.layers[1]
    assert grouped.shape.group == 6
    assert grouped.inputs.grid == (6, 12, 24, 48)
    assert grouped.outputs.grid == (6, 24, 48, 96)
    assert float(grouped.cost(analysis.full // 2)) < float(grouped.cost(analysis.full))
    found = allocate(
        analysis, score(analysis, "l2"), [latency_limit(table, 0.6)], method="latency", table=lambda: table
    )
    assert found.reached
    assert prove(analysis, found.plan, prune(analysis, found.plan), inputs_per_size=1).passed


def test_any_mix_of_limits_is_kept(analysis: Analysis, table: LatencyTable) -> None:
    limits = [macs_limit(analysis, 0.6), params_limit(analysis, 0.6), latency_limit(table, 0.7)]
    for method in ("latency", "uniform", "global", "heuristic"):
        found = allocate(analysis, score(analysis, "l2"), limits, method=method, table=lambda: table)
        assert found.reached, (method, found.lines)
        assert [line.name for line in found.lines] == ["macs_ratio", "params_ratio", "latency_ratio"]
        assert prove(analysis, found.plan, prune(analysis, found.plan), inputs_per_size=1).passed


def test_widths_are_whole_blocks(analysis: Analysis, table: LatencyTable) -> None:
    limits = [macs_limit(analysis, 0.5)]
    found = allocate(analysis, score(analysis, "l2"), limits, method="latency", table=lambda: table, round_to=1)
    assert {int(mask.sum()) % 16 for mask in found.plan.kept.values()} == {0}


def test_neighbouring_widths_do_not_alternate_between_wide_and_narrow() -> None:
    """A layer's time follows the product of two widths: how they share it is for the importances to say."""
    analysis = analyze(convnet(depth=7, width=128, size=8))
    table = measure_table(analysis)
    limits = [macs_limit(analysis, 0.25)]
    found = allocate(analysis, score(analysis, "l2"), limits, method="latency", table=lambda: table)
    widths = [int(mask.sum()) for mask in found.plan.kept.values()]
    assert len(widths) == 7
    assert max(widths[1:-1]) <= 2 * min(widths), widths


@pytest.mark.parametrize("method", ["latency", "uniform", "global"])
def test_what_gains_no_time_stays_when_the_budget_is_out_of_reach(
    analysis: Analysis, table: LatencyTable, method: str
) -> None:
    """A block of channels is computed whole: fewer of them would cost accuracy for nothing."""
    limit = latency_limit(table, 1e-6)
    found = allocate(analysis, score(analysis, "l2"), [limit], method=method, table=lambda: table)
    assert not found.reached
    assert all(mask.sum() >= BLOCK for mask in found.plan.kept.values())


def test_steps_of_part_of_a_block_lead_to_the_next_one(analysis: Analysis, table: LatencyTable) -> None:
    found = allocate(
        analysis,
        score(analysis, "l2"),
        [latency_limit(table, 0.6)],
        method="latency",
        options={"block": 1},
        round_to=1,
        table=lambda: table,
    )
    assert found.reached, found.lines
    assert found.macs > 0.2 * analysis.macs


@pytest.mark.parametrize("shared", ["paths", "once"])
@pytest.mark.parametrize("ratio", [0.4, 0.6])
def test_a_width_that_many_layers_share(ratio: float, shared: str) -> None:
    """What a residual stream loses is missing between any two of its blocks, what an inner width loses in one."""
    analysis = analyze(residual_network(blocks=6, width=64))
    table = measure_table(analysis)
    limit, options = macs_limit(analysis, ratio), {"shared": shared}
    found = allocate(analysis, score(analysis, "l2"), [limit], method="latency", options=options, table=lambda: table)
    kept = {group.id: int(found.plan.kept[group.id].sum()) for group in analysis.groups}
    (stream,) = (group.id for group in analysis.groups if len({source.node for source in group.sources}) > 1)
    assert kept[stream] == (max(kept.values()) if shared == "paths" else min(kept.values())), kept


@pytest.mark.parametrize("ratio", [0.55, 0.6, 0.65])
def test_the_budget_is_used_up(ratio: float) -> None:
    """Narrower than the budget asks for costs accuracy that nobody wanted to give."""
    analysis = analyze(convnet(depth=3, width=64, size=8))
    table = measure_table(analysis)
    limit = macs_limit(analysis, ratio)
    found = allocate(analysis, score(analysis, "l2"), [limit], method="latency", table=lambda: table)
    kept = np.array([found.plan.kept[group.id].sum() for group in analysis.groups])
    wider = kept + 16 * np.eye(len(kept), dtype=np.int64)
    assert (limit.cost(wider)[kept < analysis.full] > limit.goal).all(), kept


def test_what_cannot_be_reached_is_told_with_the_reason(analysis: Analysis, table: LatencyTable) -> None:
    found = allocate(
        analysis, score(analysis, "l2"), [latency_limit(table, 1e-6)], method="latency", table=lambda: table
    )
    assert not found.reached
    assert "smallest width" in found.lines[0].reason
    assert "by the times of its layers" in found.lines[0].reason  # it is no measurement of the whole
