"""Each criterion against a small computation of its own in numpy, on a network with random weights and labels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.engine.graph.graph_builder import GraphBuilder
from worker.engine.allocation import allocate, macs_limit
from worker.engine.criteria import CRITERIA, Calibration, score
from worker.engine.criteria.width import Floats
from worker.engine.errors import EngineError
from worker.engine.export.half_precision import to_half_precision
from worker.engine.graph import Analysis, analyze
from worker.engine.graph.analysis import Group
from worker.engine.measure.images import run_images
from worker.engine.measure.session import cpu_session
from worker.engine.torch_form.loss import LossForm

WIDTHS, CLASSES, SIZE, IMAGES = (6, 5), 4, 7, 24
AS_IT_IS = {"normalisation": "none"}


class Net:
    """Conv, BatchNormalization, Relu; Conv with stride, Relu; global mean; Gemm: the model, and the same in numpy."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        a, b = WIDTHS
        self.w: dict[str, np.ndarray] = {
            "w1": rng.normal(size=(a, 3, 3, 3)) * 0.5,
            "g": rng.normal(size=a),
            "beta": rng.normal(size=a),
            "mean": rng.normal(size=a),
            "var": rng.uniform(0.5, 2, size=a),
            "w2": rng.normal(size=(b, a, 3, 3)) * 0.3,
            "b2": rng.normal(size=b) * 0.1,
            "w3": rng.normal(size=(CLASSES, b)),
            "b3": rng.normal(size=CLASSES),
        }
        self.x = rng.normal(size=(IMAGES, 3, SIZE, SIZE)).astype(np.float32)
        self.y = rng.integers(0, CLASSES, IMAGES)

    @property
    def calibration(self) -> Calibration:
        return Calibration(self.x, self.y)

    def analysis(self) -> Analysis:
        nodes = [
            helper.make_node("Conv", ["x", "w1"], ["c1"], "one", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["c1", "g", "beta", "mean", "var"], ["n1"], "norm"),
            helper.make_node("Relu", ["n1"], ["r1"]),
            helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "two", pads=[1, 1, 1, 1], strides=[2, 2]),
            helper.make_node("Relu", ["c2"], ["r2"]),
            helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], "fc", transB=1),
        ]
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES])],
            [numpy_helper.from_array(value.astype(np.float32), name) for name, value in self.w.items()],
        )
        model: onnx.ModelProto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        return analyze(model)

    def first(self) -> np.ndarray:
        """The feature maps behind the first Relu."""
        w = self.w
        normalised = (conv(self.x, w["w1"], 1) - shaped(w["mean"])) / np.sqrt(shaped(w["var"]) + 1e-5)
        return np.maximum(normalised * shaped(w["g"]) + shaped(w["beta"]), 0)

    def second(self, first: np.ndarray | None = None) -> np.ndarray:
        maps = self.first() if first is None else first
        return np.maximum(conv(maps, self.w["w2"], 2) + shaped(self.w["b2"]), 0)

    def losses(self, second: np.ndarray | None = None) -> np.ndarray:
        maps = self.second() if second is None else second
        logits = maps.mean(axis=(2, 3)) @ self.w["w3"].T + self.w["b3"]
        return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(IMAGES), self.y]


def shaped(values: np.ndarray) -> np.ndarray:
    return values[:, None, None]


def conv(x: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
    """A 3x3 convolution with a padding of one."""
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, w.astype(np.float64))


@pytest.fixture(scope="module")
def net() -> Net:
    return Net()


def scores(net: Net, name: str, options: dict[str, object] | None = None, **data: Calibration) -> list[Floats]:
    """By width: of the first and of the second convolution."""
    found = score(net.analysis(), name, options, seed=1, **data)
    assert [len(values) for values in found.values()] == list(WIDTHS)
    return list(found.values())


def relative(values: np.ndarray) -> np.ndarray:
    return values / values.mean()


def test_norms(net: Net) -> None:
    for name, power in (("l1", 1), ("l2", 2)):
        for found, w in zip(scores(net, name), (net.w["w1"], net.w["w2"]), strict=True):
            norms = [sum(abs(v) ** power for v in one.ravel()) ** (1 / power) for one in w]
            np.testing.assert_allclose(found, relative(np.array(norms)), rtol=1e-5)


def test_fpgm_is_the_distance_to_all_other_filters(net: Net) -> None:
    for found, w in zip(scores(net, "fpgm"), (net.w["w1"], net.w["w2"]), strict=True):
        distances = np.array([sum(np.linalg.norm((a - b).ravel()) for b in w) for a in w])
        np.testing.assert_allclose(found, relative(distances), rtol=1e-4)


def test_lamp_compares_with_what_is_at_least_as_large(net: Net) -> None:
    for found, w in zip(scores(net, "lamp"), (net.w["w1"], net.w["w2"]), strict=True):
        squares = np.array([np.square(one).sum() for one in w])
        expected = [s / sum(t for t in squares if t >= s) for s in squares]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bn_scale(net: Net) -> None:
    first, second = scores(net, "bn_scale")
    np.testing.assert_allclose(first, relative(np.abs(net.w["g"])), rtol=1e-5)
    np.testing.assert_allclose(second, np.ones(WIDTHS[1]))  # there is no BatchNormalization: all alike


@pytest.mark.parametrize("name", ["l1", "l2", "fpgm"])
def test_a_dead_layer_goes_before_all_others(name: str) -> None:
    dead = Net()
    dead.w["w2"] = np.zeros_like(dead.w["w2"])
    first, second = scores(dead, name)
    assert first.max() > 0
    np.testing.assert_array_equal(second, np.zeros(WIDTHS[1]))
    analysis = dead.analysis()
    chosen = allocate(
        analysis, score(analysis, name), [macs_limit(analysis, 0.8)], method="global", round_to=1, min_ratio=0.0
    )
    kept = [int(chosen.plan.kept[group.id].sum()) for group in analysis.groups]
    assert kept[0] == WIDTHS[0]
    assert kept[1] < WIDTHS[1]


def test_bn_scale_says_nothing_of_channels_that_pass_the_norm_by() -> None:
    """A norm over the first half alone, as cross-stage partial networks have it."""
    g = GraphBuilder(13, seed=2)
    maps = g.conv(g.input(("n", 3, 6, 6)), 3, 8)
    first, second = g.node("Split", maps, g.ints(4, 4), outputs=2, axis=1)
    both = g.node("Concat", g.batch_norm(first, 4), second, axis=1)
    analysis = analyze(g.model(g.conv(g.node("Relu", both), 8, 4)))
    scale = next(analysis.graph.array(n.input[1]) for n in analysis.graph.nodes if n.op_type == "BatchNormalization")
    found = np.concatenate(list(score(analysis, "bn_scale", AS_IT_IS).values()))
    np.testing.assert_allclose(found, [*np.abs(scale), *[np.abs(scale).mean()] * 4], rtol=1e-6)


def test_random_is_reproducible(net: Net) -> None:
    analysis = net.analysis()
    first, again, another = (score(analysis, "random", seed=seed) for seed in (0, 0, 1))
    for one, same, other in zip(first.values(), again.values(), another.values(), strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)
        assert len(np.unique(one)) == len(one)


def test_apoz_is_the_share_of_zeros(net: Net) -> None:
    found = scores(net, "apoz", AS_IT_IS, calibration=net.calibration)
    for values, maps in zip(found, (net.first(), net.second()), strict=True):
        np.testing.assert_allclose(values, 1 - (maps == 0).mean(axis=(0, 2, 3)), atol=1e-9)


def test_apoz_counts_negative_values_as_any_that_are_not_zero(net: Net) -> None:
    b = GraphBuilder(seed=0)
    maps = b.conv(b.input(("n", 3, SIZE, SIZE)), 3, 6)
    leaky = b.conv(b.node("LeakyRelu", maps, alpha=0.1), 6, CLASSES)
    (values,) = score(analyze(b.model(leaky)), "apoz", AS_IT_IS, calibration=net.calibration).values()
    np.testing.assert_array_equal(values, np.ones(6))


def test_variance_is_that_of_the_feature_maps(net: Net) -> None:
    found = scores(net, "variance", AS_IT_IS, calibration=net.calibration)
    for values, maps in zip(found, (net.first(), net.second()), strict=True):
        np.testing.assert_allclose(values, maps.var(axis=(0, 2, 3)), rtol=1e-4)


def test_hrank_is_the_mean_rank(net: Net) -> None:
    found = scores(net, "hrank", {**AS_IT_IS, "calibration_images": 8}, calibration=net.calibration)
    for values, maps in zip(found, (net.first(), net.second()), strict=True):
        ranks = [[np.linalg.matrix_rank(image[channel]) for image in maps[:8]] for channel in range(maps.shape[1])]
        np.testing.assert_allclose(values, np.mean(ranks, axis=1))


def test_taylor_is_the_squared_derivative_along_the_filter(net: Net) -> None:
    options = {**AS_IT_IS, "batch_size": IMAGES}
    found = scores(net, "taylor", options, calibration=net.calibration)
    for values, name in zip(found, ("w1", "w2"), strict=True):
        for channel, value in enumerate(values):
            slope = derivative(lambda scale, n=name, c=channel: with_filter(net, n, c, scale))
            assert value == pytest.approx(slope**2, rel=1e-3, abs=1e-9)


def test_taylor_squares_the_slope_of_each_batch(net: Net) -> None:
    """Slopes of batches that point apart do not cancel."""
    found = score(net.analysis(), "taylor", {**AS_IT_IS, "batch_size": IMAGES // 2}, calibration=net.calibration)
    halves = [
        score(net.analysis(), "taylor", AS_IT_IS, calibration=Calibration(net.x[half], net.y[half]))
        for half in (slice(None, IMAGES // 2), slice(IMAGES // 2, None))
    ]
    for group, values in found.items():
        np.testing.assert_allclose(values, (halves[0][group] + halves[1][group]) / 2, rtol=1e-5)


def with_filter(net: Net, name: str, channel: int, scale: float) -> float:
    """The loss with one filter scaled."""
    other = Net()
    other.w[name][channel] *= scale
    return float(other.losses().mean())


def derivative(function, at: float = 1.0, step: float = 1e-5):
    return (function(at + step) - function(at - step)) / (2 * step)


def test_fisher_is_the_second_moment_of_the_gates_slope(net: Net) -> None:
    found = scores(net, "fisher", AS_IT_IS, calibration=net.calibration)
    first, second = net.first(), net.second()
    for channel, value in enumerate(found[0]):
        slope = derivative(lambda s, c=channel: net.losses(net.second(gated(first, c, s))))
        assert value == pytest.approx(np.square(slope).mean() / 2, rel=1e-3, abs=1e-9)
    for channel, value in enumerate(found[1]):
        slope = derivative(lambda s, c=channel: net.losses(gated(second, c, s)))
        assert value == pytest.approx(np.square(slope).mean() / 2, rel=1e-3, abs=1e-9)


def gated(maps: np.ndarray, channel: int, scale: float) -> np.ndarray:
    changed = maps.copy()
    changed[:, channel] *= scale
    return changed


def test_reconstruction_alone_is_the_share_of_the_outputs_energy(net: Net) -> None:
    _, second = scores(net, "reconstruction", {**AS_IT_IS, "greedy": False}, calibration=net.calibration)
    pooled = net.second().mean(axis=(2, 3))  # what the classifier reads, at its one position per image
    output = pooled @ net.w["w3"].T
    alone = [np.square(np.outer(pooled[:, c], net.w["w3"][:, c])).sum() for c in range(WIDTHS[1])]
    np.testing.assert_allclose(second, np.array(alone) / np.square(output).sum(), rtol=1e-4)


def test_reconstruction_samples_what_a_convolution_reads(net: Net) -> None:
    """With many positions drawn, the mean over them comes close to that over all."""
    options = {**AS_IT_IS, "greedy": False, "locations": 400}
    first, _ = scores(net, "reconstruction", options, calibration=net.calibration)
    maps, w = net.first(), net.w["w2"]
    energy = np.square(conv(maps, w, 2)).sum()
    alone = [np.square(conv(maps[:, [c]], w[:, [c]], 2)).sum() / energy for c in range(WIDTHS[0])]
    np.testing.assert_allclose(first, alone, rtol=0.1)


def test_greedy_reconstruction_removes_what_adds_least_error(net: Net) -> None:
    """A score is the largest error up to the unit's removal, as a share of the outputs' energy."""
    _, second = scores(net, "reconstruction", AS_IT_IS, calibration=net.calibration)
    pooled, w3 = net.second().mean(axis=(2, 3)), net.w["w3"]
    removed: list[int] = []
    worst = 0.0
    for unit in np.argsort(second):

        def error(channels: list[int]) -> float:
            return float(np.square(pooled[:, channels] @ w3[:, channels].T).sum())

        rest = [c for c in range(WIDTHS[1]) if c not in removed]
        assert error([*removed, int(unit)]) == pytest.approx(min(error([*removed, c]) for c in rest), rel=1e-5)
        removed.append(int(unit))
        worst = max(worst, error(removed) / error(list(range(WIDTHS[1]))))
        assert second[unit] == pytest.approx(worst, rel=1e-4)


@pytest.mark.parametrize("name", [method.name for method in CRITERIA if method.data != "none"])
def test_a_criterion_without_its_data_is_an_error_of_the_user(net: Net, name: str) -> None:
    with pytest.raises(EngineError, match="dataset"):
        score(net.analysis(), name)


@pytest.mark.parametrize("name", [method.name for method in CRITERIA])
@pytest.mark.parametrize("normalisation", ["mean", "max", "sum", "norm"])
def test_scores_are_normalised_per_layer(net: Net, name: str, normalisation: str) -> None:
    of_one = {"mean": np.mean, "max": np.max, "sum": np.sum, "norm": np.linalg.norm}[normalisation]
    first, second = scores(net, name, {"normalisation": normalisation}, calibration=net.calibration)
    assert of_one(first) == pytest.approx(1.0)
    assert of_one(second) == pytest.approx(1.0)
    assert len(np.unique(first)) > 1


@pytest.mark.parametrize("name", [method.name for method in CRITERIA])
def test_layers_without_weights_may_sum_over_channels(name: str) -> None:
    """As F.normalize does, at the end of embedding networks."""
    g = GraphBuilder(13)
    x = g.node("Relu", g.conv(g.input(("n", 3, 6, 6)), 3, 16))
    x = g.conv(g.node("Div", x, g.node("ReduceL2", x, axes=[1], keepdims=1)), 16, 8)
    x = g.node("Relu", g.batch_norm(x, 8))
    analysis = analyze(g.model(g.gemm(g.node("Flatten", g.node("GlobalAveragePool", x)), 8, 4)))
    rng = np.random.default_rng(0)
    images = Calibration(rng.random((20, 3, 6, 6), dtype=np.float32), rng.integers(0, 4, 20))
    found = score(analysis, name, calibration=images)
    assert all(np.isfinite(values).all() for values in found.values())


def test_aggregation_over_coupled_layers() -> None:
    """Two convolutions added up: their filters go together."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 3, 1, 1)), rng.normal(size=(4, 3, 1, 1))
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["ya"]),
        helper.make_node("Conv", ["x", "b"], ["yb"]),
        helper.make_node("Add", ["ya", "yb"], ["sum"]),
        helper.make_node("Conv", ["sum", "c"], ["out"]),
    ]
    weights = {"a": a, "b": b, "c": rng.normal(size=(2, 4, 1, 1))}
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 5, 5])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 2, 5, 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    analysis = analyze(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))
    rows = np.stack([relative(np.abs(w).sum(axis=(1, 2, 3))) for w in (a, b)])
    for aggregation, expected in (("mean", rows.mean(axis=0)), ("sum", rows.sum(axis=0)), ("max", rows.max(axis=0))):
        found = score(analysis, "l1", {"aggregation": aggregation, "normalisation": "none"})
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def residual(blocks: int = 3, width: int = 6, classes: int = CLASSES) -> Analysis:
    """A stem and blocks of two convolutions around which a shortcut leads, each with Relu; global mean; Gemm."""
    b = GraphBuilder(seed=4)
    stream = b.node("Relu", b.conv(b.input(("n", 3, SIZE, SIZE)), 3, width))
    for _ in range(blocks):
        inner = b.node("Relu", b.conv(stream, width, width))
        stream = b.node("Relu", b.node("Add", stream, b.conv(inner, width, width)))
    flat = b.node("Flatten", b.node("GlobalAveragePool", stream))
    return analyze(b.model(b.node("MatMul", flat, b.weight(width, classes))))


def test_fisher_counts_what_each_reader_of_a_residual_stream_reads_once(net: Net) -> None:
    """A gate where the stream is read is the same as one on all that writes it: filters, biases and their scale."""
    analysis = residual()
    (stream,) = (group for group in analysis.groups if len(group.sources) > 1)
    assert_fisher_is_the_slope_of_scaled_filters(net, analysis, stream)


@pytest.mark.parametrize("reader", ["MatMul", "LSTM"])
def test_fisher_takes_images_apart_where_a_layer_reads_them_second(net: Net, reader: str) -> None:
    """As text recognisers do: columns of the feature maps are the steps of a sequence, the batch is the second axis."""
    b = GraphBuilder(seed=4)
    maps = b.node("Relu", b.conv(b.input(("n", 3, SIZE, SIZE)), 3, 6))
    row = b.node("Squeeze", b.node("ReduceMean", maps, axes=[2], keepdims=1), b.constant([2]))
    steps = b.node("Transpose", row, perm=[2, 0, 1])
    if reader == "MatMul":
        last = b.node("ReduceMean", b.node("Sigmoid", b.node("MatMul", steps, b.weight(6, 5))), axes=[0], keepdims=0)
    else:
        _, state = b.node("LSTM", steps, b.weight(1, 20, 6), b.weight(1, 20, 5), outputs=2, hidden_size=5)
        b.nodes[-1].output[0] = ""
        last = b.node("Squeeze", state, b.constant([0]))
    analysis = analyze(b.model(b.node("MatMul", last, b.weight(5, CLASSES))))
    group = next(group for group in analysis.groups if analysis.graph.nodes[group.sources[0].node].op_type == "Conv")
    assert_fisher_is_the_slope_of_scaled_filters(net, analysis, group)


def test_quantised_weights_count_by_the_values_they_stand_for(net: Net) -> None:
    """A scale for each filter, as quantisers write: the integers alone would make all filters about as large. One
    weight is behind DequantizeLinear and Transpose without `perm`, the other is read as it is."""
    b = GraphBuilder(seed=4)
    x = b.input(("n", 3, SIZE, SIZE))
    kernels, rows = (b.rng.integers(-100, 100, size=shape).astype(np.int8) for shape in [(6, 3, 3, 3), (5, 6)])
    spread = np.geomspace(0.001, 0.1, 6).astype(np.float32)
    step, zero = b.constant(np.float32(0.05)), b.constant(np.int8(0))
    zeros = b.constant(np.full(6, 3, np.int8))
    pixels = b.node("QuantizeLinear", x, step, zero)
    maps = b.node(
        "QLinearConv", pixels, step, zero, b.constant(kernels), b.constant(spread), zeros, step, zero, pads=[1, 1, 1, 1]
    )
    flat = b.node("Flatten", b.node("GlobalAveragePool", b.node("Relu", b.node("DequantizeLinear", maps, step, zero))))
    weight = b.node(
        "DequantizeLinear", b.constant(rows), b.constant(spread[:5]), b.constant(np.zeros(5, np.int8)), axis=0
    )
    hidden = b.node("Relu", b.node("MatMul", flat, b.node("Transpose", weight)))
    analysis = analyze(b.model(b.node("MatMul", hidden, b.weight(5, CLASSES))))
    found = score(analysis, "l1", AS_IT_IS)
    first, second = (
        next(found[each.id] for each in analysis.groups if analysis.graph.nodes[each.sources[0].node].op_type == op)
        for op in ("QLinearConv", "MatMul")
    )
    for values, wanted in [
        (first, np.abs(kernels.astype(float) - 3).sum(axis=(1, 2, 3)) * spread),
        (second, np.abs(rows.astype(float)).sum(axis=1) * spread[:5]),
    ]:
        np.testing.assert_allclose(values, wanted / wanted.mean(), rtol=1e-5)


def assert_fisher_is_the_slope_of_scaled_filters(net: Net, analysis: Analysis, group: Group) -> None:
    found = score(analysis, "fisher", AS_IT_IS, calibration=net.calibration)[group.id]
    writers = {source.node for source in group.sources}

    def losses(channel: int, scale: float) -> np.ndarray:
        model = onnx.ModelProto()
        model.CopyFrom(analysis.graph.model)
        scaled = {name for node in writers for name in analysis.graph.nodes[node].input[1:]}
        for tensor in model.graph.initializer:
            if tensor.name in scaled:
                values = numpy_helper.to_array(tensor).copy()
                values[channel] *= scale
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        form = LossForm(model)
        form.network.double()
        with torch.no_grad():
            return np.concatenate(
                [each.numpy() for each, _, _ in form.batches(net.x.astype(np.float64), net.y, IMAGES)]
            )

    for channel, value in enumerate(found):
        slope = derivative(lambda s, c=channel: losses(c, s), step=1e-3)
        assert value == pytest.approx(np.square(slope).mean() / 2, rel=1e-2)


@pytest.mark.parametrize("name", ["apoz", "variance", "hrank"])
def test_a_channel_that_is_read_once_counts_as_much_as_one_that_is_read_twice(net: Net, name: str) -> None:
    """Halves of a Split, alike but for what reads them: one goes on at once, the other through a convolution, too."""
    b = GraphBuilder(seed=4)
    half = b.rng.normal(size=(6, 3, 3, 3)).astype(np.float32)
    filters = b.constant(np.concatenate([half, half]))
    maps = b.node("Relu", b.node("Conv", b.input(("n", 3, SIZE, SIZE)), filters, pads=[1, 1, 1, 1]))
    first, second = b.node("Split", maps, b.constant([6, 6]), outputs=2, axis=1)
    joined = b.node("Concat", first, second, b.node("Relu", b.conv(second, 6, 6)), axis=1)
    flat = b.node("Flatten", b.node("GlobalAveragePool", b.conv(joined, 18, 8)))
    analysis = analyze(b.model(b.node("MatMul", flat, b.weight(8, CLASSES))))
    found = score(analysis, name, AS_IT_IS, calibration=net.calibration)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert len(np.unique(found[0])) > 3


@pytest.mark.parametrize("name", ["reconstruction", "refit"])
def test_a_kernel_is_as_wide_as_its_weight_where_no_attribute_says_so(net: Net, name: str) -> None:
    b = GraphBuilder(seed=4)
    maps = b.node("Relu", b.conv(b.input(("n", 3, SIZE, SIZE)), 3, 6))
    wide = b.node("Conv", maps, b.weight(5, 6, 1, 5), pads=[0, 2, 0, 2])
    flat = b.node("Flatten", b.node("GlobalAveragePool", b.node("Relu", wide)))
    analysis = analyze(b.model(b.node("MatMul", flat, b.weight(5, CLASSES))))
    assert len(np.unique(score(analysis, name, AS_IT_IS, calibration=net.calibration)[0])) == 6


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_images_that_do_not_fill_a_fixed_batch_are_looked_at_all_the_same(net: Net, name: str) -> None:
    analysis = net.analysis()
    fixed = onnx.ModelProto()
    fixed.CopyFrom(analysis.graph.model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = IMAGES + 8
    options = {**AS_IT_IS, "batch_size": IMAGES}
    expected, found = (score(each, name, options, calibration=net.calibration) for each in (analysis, analyze(fixed)))
    for group, values in expected.items():
        np.testing.assert_allclose(found[group], values, rtol=1e-4)


def test_the_rank_of_maps_of_halves(net: Net) -> None:
    halves = analyze(to_half_precision(net.analysis().graph.model, keep_io=False))
    found = score(halves, "hrank", AS_IT_IS, calibration=net.calibration)
    assert all(values.min() >= 0 and values.max() <= SIZE for values in found.values())


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_filters_of_a_matrix_around_which_a_shortcut_leads_are_its_columns(op: str) -> None:
    """Inputs and outputs of such a matrix are the same channels."""
    b = GraphBuilder(seed=4)
    matrix = b.rng.normal(size=(8, 8)).astype(np.float32)
    matrix[:, 2] = 0
    matrix[5] = 0
    first = b.node("MatMul", b.input(("n", 3)), b.constant(np.ones((3, 8), np.float32)))
    stream = b.node("Add", first, b.node(op, first, b.constant(matrix)))
    analysis = analyze(b.model(b.node("MatMul", b.node("Relu", stream), b.weight(8, CLASSES))))
    assert int(np.argmin(score(analysis, "l1", {"normalisation": "none"})[0])) == 2


@pytest.mark.parametrize("value", [np.nan, 1e38])
@pytest.mark.parametrize("name", ["apoz", "variance", "hrank"])
def test_feature_maps_that_are_no_numbers_have_no_score(name: str, value: float) -> None:
    """Of infinity numpy says that its rank is 0."""
    b = GraphBuilder()
    maps = b.node("Conv", b.input(("n", 3, 4, 4)), b.constant(np.full((8, 3, 1, 1), 10, np.float32)))
    logits = b.node("GlobalAveragePool", b.conv(b.node("Relu", maps), 8, CLASSES))
    spoilt = Calibration(np.full((4, 3, 4, 4), value, np.float32), np.zeros(4, np.int64))
    with pytest.raises(EngineError, match="NaN") as refused:
        score(analyze(b.model(logits)), name, calibration=spoilt)
    assert refused.value.code == "not_finite"


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_an_image_whose_loss_is_no_number_is_refused(net: Net, name: str) -> None:
    """It would make all channels alike."""
    images = net.x.copy()
    images[1] = np.nan
    with pytest.raises(EngineError, match="has no gradient") as refused:
        score(net.analysis(), name, calibration=Calibration(images, net.y))
    assert refused.value.code == "not_finite"


def quantised(b: GraphBuilder, inputs: int, outputs: int, x: str) -> str:
    """Relu(x W) as static quantisation writes it: integer weights, activations of eight bits."""
    step, zero = b.constant(0.02), b.constant(np.uint8(0))
    x = b.node("DequantizeLinear", b.node("QuantizeLinear", x, step, zero), step, zero)
    levels = b.constant(b.rng.integers(-60, 61, (inputs, outputs)).astype(np.int8))
    return b.node("Relu", b.node("MatMul", x, b.node("DequantizeLinear", levels, b.constant(0.01))))


def test_gradients_pass_quantised_layers_and_do_not_reach_integer_weights() -> None:
    b = GraphBuilder(seed=4)
    hidden = quantised(b, 6, 8, b.input(("n", 6)))
    analysis = analyze(b.model(quantised(b, 8, CLASSES, hidden)))
    rng = np.random.default_rng(2)
    calibration = Calibration(rng.random((IMAGES, 6), np.float32), rng.integers(0, CLASSES, IMAGES))
    (found,) = score(analysis, "fisher", AS_IT_IS, calibration=calibration).values()
    assert len(np.unique(found)) > 3
    with pytest.raises(EngineError, match="gradient") as error:
        score(analysis, "taylor", calibration=calibration)
    assert error.value.code == "no_gradient"


def test_channels_that_only_a_body_reads_are_all_alike_to_gates(net: Net) -> None:
    b = GraphBuilder(seed=4)
    images = b.input(("n", 3, SIZE, SIZE))
    maps = b.node("Relu", b.conv(images, 3, 6))
    bodies = []
    for op in ("Relu", "Tanh"):
        inner = b.inside()
        made = inner.node(op, inner.conv(maps, 6, 5))
        bodies.append(inner.body([], [helper.make_tensor_value_info(made, TensorProto.FLOAT, None)]))
    bright = b.node("Greater", b.node("ReduceMax", images, keepdims=0), b.constant(0.5))
    branch = b.node("If", bright, then_branch=bodies[0], else_branch=bodies[1])
    flat = b.node("Flatten", b.node("GlobalAveragePool", branch))
    analysis = analyze(b.model(b.node("MatMul", flat, b.weight(5, CLASSES))))
    (values,) = score(analysis, "fisher", AS_IT_IS, calibration=net.calibration).values()
    np.testing.assert_array_equal(values, 1)


def sequence_first(batch: int | str, *, attention: bool = True, width: int = 6, heads: int = 3) -> Analysis:
    """Conv; its nine positions as a sequence with the batch second, through attention with heads in the batch and a
    layer of two readers; means over the sequence."""
    b = GraphBuilder(seed=4)
    maps = b.conv(b.input((batch, 3, SIZE, SIZE)), 3, width, strides=[3, 3])
    steps = b.transpose(b.reshape(maps, 0, width, 9), 2, 0, 1)
    if attention:
        split = [b.reshape(b.linear(steps, width, width), 9, batch * heads, width // heads) for _ in range(3)]
        query, key, value = (b.node("Mul", b.transpose(each, 1, 0, 2), b.constant(0.7)) for each in split)
        mixed = b.node("MatMul", b.node("Softmax", b.node("MatMul", query, b.transpose(key, 0, 2, 1)), axis=-1), value)
        steps = b.linear(b.reshape(b.transpose(mixed, 1, 0, 2), 9, batch, width), width, width)
    hidden = b.node("Sigmoid", b.linear(steps, width, 8))
    read = b.node("Sigmoid", b.linear(hidden, 8, 7))
    means = [b.node("ReduceMean", each, axes=[0], keepdims=0) for each in (hidden, read)]
    return analyze(b.model(b.node("Add", b.matmul(means[0], 8, CLASSES), b.matmul(means[1], 7, CLASSES))))


@pytest.mark.parametrize("name", ["apoz", "variance", "hrank", "fisher", "taylor"])
@pytest.mark.parametrize("batch", [1, 2, 4, 9])
def test_heads_in_the_batch_are_scored(net: Net, name: str, batch: int) -> None:
    some = Calibration(net.x[:9], net.y[:9])
    found = score(sequence_first(batch), name, AS_IT_IS, calibration=some)
    assert found
    assert all(np.isfinite(values).all() for values in found.values())


def blurred(batch: int | str, *, folded: bool) -> Analysis:
    """The same blur for all channels: of samples x channels, or channel by channel."""
    b = GraphBuilder(seed=4)
    maps = b.node("Relu", b.conv(b.input((batch, 3, SIZE, SIZE)), 3, 6))
    blur = b.rng.uniform(0.5, 1.5, (1, 1, 3, 3)).astype(np.float32)
    if folded:
        planes = b.node("Conv", b.reshape(maps, -1, 1, SIZE, SIZE), b.constant(blur), pads=[1] * 4)
        maps = b.reshape(planes, -1, 6, SIZE, SIZE)
    else:
        maps = b.node("Conv", maps, b.constant(np.repeat(blur, 6, axis=0)), pads=[1] * 4, group=6)
    pooled = b.node("Flatten", b.node("GlobalAveragePool", b.node("Relu", b.conv(maps, 6, 5))))
    return analyze(b.model(b.gemm(pooled, 5, CLASSES)))


@pytest.mark.parametrize("name", ["apoz", "variance", "hrank", "fisher"])
@pytest.mark.parametrize("batch", [1, 3, "n"])
def test_channels_folded_into_the_samples_are_scored_as_any(net: Net, name: str, batch: int | str) -> None:
    some = Calibration(net.x[:9], net.y[:9])
    expected, found = (score(blurred(batch, folded=f), name, AS_IT_IS, calibration=some) for f in (False, True))
    for values, others in zip(expected.values(), found.values(), strict=True):
        np.testing.assert_allclose(others, values, rtol=1e-4)


@pytest.mark.parametrize(("name", "batches"), [("variance", (3, 9, "n")), ("fisher", (2, 4, 9, "n"))])
def test_images_count_alike_where_the_batch_is_the_second_axis(net: Net, name: str, batches: tuple[int | str]) -> None:
    """Also where there are as many images as steps, and to a derivative also where images fill a batch up."""
    some = Calibration(net.x[:9], net.y[:9])
    expected = score(sequence_first(1, attention=False), name, AS_IT_IS, calibration=some)
    for batch in batches:
        found = score(sequence_first(batch, attention=False), name, AS_IT_IS, calibration=some)
        for group, values in expected.items():
            np.testing.assert_allclose(found[group], values, rtol=1e-4)


def of_pixels() -> onnx.ModelProto:
    """A model that takes bytes."""
    b = GraphBuilder(seed=4)
    x = b.node("Cast", b.input(("n", 3, SIZE, SIZE), kind=TensorProto.UINT8), to=TensorProto.FLOAT)
    flat = b.node("Flatten", b.node("GlobalAveragePool", b.node("Relu", b.conv(x, 3, 6))))
    return b.model(b.node("MatMul", flat, b.weight(6, CLASSES)))


def test_images_that_do_not_fit_the_element_type_are_told_from_those_that_do_not_fit_the_size(net: Net) -> None:
    with pytest.raises(EngineError, match="does not run") as error:
        score(analyze(of_pixels()), "apoz", calibration=net.calibration)
    assert "uint8" in error.value.hint
    with pytest.raises(EngineError, match="does not run") as error:
        run_images(cpu_session(of_pixels(), threads=1), net.x)
    assert "uint8" in error.value.hint
    with pytest.raises(EngineError, match="does not run") as error:
        score(net.analysis(), "apoz", calibration=Calibration(net.x[:, :2], net.y))
    assert "size and layout" in error.value.hint


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_images_on_which_torch_fails_are_an_error_of_the_engine(net: Net, name: str) -> None:
    with pytest.raises(EngineError, match="does not run on images") as error:
        score(net.analysis(), name, calibration=Calibration(net.x[:, :2], net.y))
    assert error.value.code == "torch_form_failed"


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_scores_without_a_row_for_each_image_are_an_error_of_the_engine(net: Net, name: str) -> None:
    b = GraphBuilder(seed=4)
    maps = b.node("Relu", b.conv(b.input((1, 3, SIZE, SIZE)), 3, 6))
    flat = b.node("Flatten", b.node("GlobalAveragePool", maps))
    analysis = analyze(b.model(b.node("Squeeze", b.node("MatMul", flat, b.weight(6, CLASSES)), b.ints(0))))
    with pytest.raises(EngineError) as error:
        score(analysis, name, calibration=net.calibration)
    assert error.value.code == "torch_form_failed"
