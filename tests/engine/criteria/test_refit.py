"""The criterion that knows what least squares will make up for."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import convnet
from worker.engine.criteria import Calibration, covariance, score
from worker.engine.errors import EngineError
from worker.engine.graph import Analysis, analyze

AS_IT_IS = {"normalisation": "none"}
IMAGES = Calibration(np.random.default_rng(0).random((48, 3, 12, 12), dtype=np.float32) - 0.5)


def with_copies() -> onnx.ModelProto:
    """Filters 8 to 15 of the first convolution repeat filters 0 to 7, three times as large."""
    model = convnet(width=16)
    for tensor in model.graph.initializer:
        if tensor.name == "conv0.weight":
            weight = numpy_helper.to_array(tensor).copy()
            weight[8:] = 3 * weight[:8]
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return model


def test_channels_that_others_can_stand_in_for_go_first():
    analysis = analyze(with_copies())
    images = np.random.default_rng(0).random((40, 3, 12, 12), dtype=np.float32) - 0.5
    scores = score(analysis, "refit", {"normalisation": "none", "ridge": 1e-6}, calibration=Calibration(images))
    first = scores[0]
    for small, large in zip(first[:8], first[8:], strict=True):
        assert min(small, large) < 1e-3 < max(small, large)
    assert np.sort(first)[7] < 1e-3 < np.sort(first)[8]
    assert first.max() < 1.5  # all of the output's variance, at most
    # By weights alone the larger copies are all more important than the smaller ones.
    assert (score(analysis, "l2")[0][8:] > score(analysis, "l2")[0][:8]).all()


@pytest.mark.parametrize("channels", [64, 128])
def test_of_two_channels_that_stand_in_for_each_other_one_goes_late(channels: int) -> None:
    """In wide layers several channels go at a time, each of a pair costing nothing while the other is there."""
    g = GraphBuilder(seed=1)
    weight, bias = g.normal(channels, 3, 3, 3), g.normal(channels) / 3
    weight[0] *= 2
    weight[-1], bias[-1] = weight[0], bias[0]
    maps = g.node("Relu", g.node("Conv", g.input(("n", 3, 12, 12)), g.constant(weight), g.constant(bias), pads=[1] * 4))
    analysis = analyze(g.model(g.node("Conv", maps, g.constant(g.normal(32, channels, 1, 1)))))
    scores = score(analysis, "refit", {**AS_IT_IS, "ridge": 1e-5}, calibration=IMAGES)[0]
    low, high = sorted(np.argsort(np.argsort(scores))[[0, -1]])
    assert low < channels / 2 < high
    assert scores.max() == pytest.approx(1, rel=1e-3)  # all of the output's variance, once all are gone


def test_scores_grow_along_the_order_of_removal_and_repeat():
    analysis = analyze(convnet(width=16))
    calibration = Calibration(np.random.default_rng(1).random((20, 3, 12, 12), dtype=np.float32))
    found = [score(analysis, "refit", seed=3, calibration=calibration) for _ in range(2)]
    for group in analysis.groups:
        assert len(set(found[0][group.id])) == len(group)
        assert (found[0][group.id] == found[1][group.id]).all()


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_scores_are_the_errors_that_damped_least_squares_leaves(ridge: float) -> None:
    """By its closed form, on rows whose mean drifts from one portion to the next."""
    g, rng = GraphBuilder(seed=3), np.random.default_rng(5)
    first, bias, second = g.normal(6, 8), g.normal(8), g.normal(8, 5)
    hidden = g.node("Relu", g.node("Gemm", g.input(("n", 6)), g.constant(first), g.constant(bias)))
    analysis = analyze(g.model(g.node("Gemm", hidden, g.constant(second))))
    rows = (rng.normal(size=(700, 6)) + np.linspace(-1, 2, 700)[:, None]).astype(np.float32)
    options = {**AS_IT_IS, "ridge": ridge, "calibration_images": 700}
    found = score(analysis, "refit", options, calibration=Calibration(rows))[0]

    covariance = np.cov(np.maximum(rows.astype(np.float64) @ first + bias, 0), rowvar=False, bias=True)
    damped = covariance + ridge * np.diagonal(covariance).mean() * np.eye(8)

    def error(removed: list[int]) -> float:
        kept = [unit for unit in range(8) if unit not in removed]
        lost = second.astype(np.float64)
        lost[kept] -= np.linalg.solve(damped[np.ix_(kept, kept)], damped[kept] @ second)
        return float((lost * (damped @ lost)).sum() / (second * (covariance @ second)).sum())

    removed: list[int] = []
    for unit in np.argsort(found).tolist():
        rest = [other for other in range(8) if other not in removed]
        assert found[unit] == pytest.approx(min(error([*removed, other]) for other in rest), rel=1e-4)
        removed.append(unit)
        assert found[unit] == pytest.approx(error(removed), rel=1e-4)


def with_reader(op: str, weight: np.ndarray, **attributes: int) -> Analysis:
    """A convolution of 8 channels, and a layer that reads them."""
    g = GraphBuilder(seed=2)
    maps = g.node("Relu", g.conv(g.input(("n", 3, 12, 12)), 3, 8))
    return analyze(g.model(g.node(op, maps, g.constant(weight.astype(np.float32)), **attributes)))


def weight_of(*shape: int) -> np.ndarray:
    """All of it but for what is multiplied with channels 2 and 6, on axis 1."""
    weight = np.random.default_rng(3).normal(size=shape)
    weight[:, [2, 6] if shape[1] == 8 else [2]] = 0
    return weight


@pytest.mark.parametrize(
    ("op", "weight", "attributes"),
    [
        ("Conv", weight_of(4, 8, 1, 1), {}),
        ("Conv", weight_of(6, 4, 3, 3), {"group": 2}),
        ("ConvTranspose", weight_of(4, 8, 2, 2).swapaxes(0, 1), {}),
        ("ConvTranspose", weight_of(5, 8, 3, 3).swapaxes(0, 1).reshape(8, 5, 3, 3), {"group": 2}),
    ],
)
def test_what_a_layer_does_not_read_goes_first(op: str, weight: np.ndarray, attributes: dict[str, int]) -> None:
    scores = score(with_reader(op, weight, **attributes), "refit", AS_IT_IS, calibration=IMAGES)
    for values in scores.values():  # of a grouped layer, one group per position
        pairs = np.sort(values)
        assert pairs[0] < 1e-9
        assert pairs[-1] > 1e-3


def test_layers_too_wide_for_a_refit_are_judged_channel_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = with_reader("Conv", weight_of(4, 8, 1, 1))
    exact = score(analysis, "refit", AS_IT_IS, calibration=IMAGES)[0]
    monkeypatch.setattr(covariance, "MAX_INPUTS", 4)
    rough = score(analysis, "refit", AS_IT_IS, calibration=IMAGES)[0]
    assert set(np.argsort(rough)[:2]) == set(np.argsort(exact)[:2]) == {2, 6}
    assert rough.max() == pytest.approx(1)  # everything, once all are gone
    assert (rough[exact > 1e-6] > 1e-6).all()


def test_portions_of_memory_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analyze(convnet(width=16))
    at_once = score(analysis, "refit", AS_IT_IS, calibration=IMAGES)
    monkeypatch.setattr(covariance, "_PORTION_BYTES", 1)
    one_by_one = score(analysis, "refit", AS_IT_IS, calibration=IMAGES)
    assert len(at_once) > 1
    for group, values in at_once.items():
        np.testing.assert_array_equal(values, one_by_one[group])


def test_where_no_reader_is_known_the_share_of_the_weights_that_is_gone_counts() -> None:
    """Both factors of the product are computed."""
    g = GraphBuilder(seed=4)
    x = g.input(("n", 3, 12, 12))
    left, right = (g.node("Reshape", g.conv(x, 3, 8), g.constant(np.array([0, 8, 144]))) for _ in range(2))
    analysis = analyze(g.model(g.node("MatMul", g.node("Transpose", left, perm=[0, 2, 1]), right)))
    assert analysis.groups
    for values in score(analysis, "refit", AS_IT_IS, calibration=IMAGES).values():
        assert 0 < values.min() < 1 / len(values)
        assert values.max() == pytest.approx(1)


def test_small_variations_around_a_large_mean_are_seen() -> None:
    """The same network, but for a constant that its second layer takes off again."""
    g = GraphBuilder(seed=6)
    weight, bias, reader = g.normal(8, 3, 1, 1), np.zeros(8, np.float32), g.constant(g.normal(4, 8, 1, 1))
    maps = g.node("Conv", g.input(("n", 3, 12, 12)), g.constant(weight), g.constant(bias, "bias"))
    model = g.model(g.node("Conv", maps, reader))
    found = []
    for constant in (0.0, 1000.0):
        for tensor in model.graph.initializer:
            if tensor.name == "bias":
                tensor.CopyFrom(numpy_helper.from_array(bias + np.float32(constant), "bias"))
        found.append(score(analyze(model), "refit", AS_IT_IS, calibration=IMAGES)[0])
    np.testing.assert_allclose(found[0], found[1], rtol=0.02, atol=1e-3)


def between(*ops: str, bias: float = 0.0) -> Analysis:
    """Two convolutions with operators between them, the first one's outputs moved by `bias`."""
    g = GraphBuilder(seed=7)
    constant = g.constant(np.full(8, bias, np.float32))
    maps = g.node("Conv", g.input(("n", 3, 12, 12)), g.constant(g.normal(8, 3, 1, 1)), constant)
    for op in ops:
        maps = g.node(op, maps)
    other = g.node("Conv", maps, g.constant(g.normal(6, 8, 1, 1)))
    return analyze(g.model(g.node("Conv", g.node("Relu", other), g.constant(g.normal(4, 6, 1, 1)))))


def test_values_that_are_no_numbers_are_left_out() -> None:
    scores = score(between("Sqrt", bias=0.5), "refit", AS_IT_IS, calibration=IMAGES)
    assert len(np.unique(scores[0])) == 8
    assert all(np.isfinite(values).all() for values in scores.values())


def test_where_all_values_are_no_numbers_the_job_is_told() -> None:
    with pytest.raises(EngineError, match="infinite") as refused:
        score(between("Sqrt", bias=-100.0), "refit", AS_IT_IS, calibration=IMAGES)
    assert "l2" in refused.value.hint


def test_what_is_always_the_same_goes_first() -> None:
    """A constant is made up for by the next layer's bias."""
    for analysis in (between("Relu", bias=-1000.0), between("Relu", "Sign", bias=1000.0)):
        dead = score(analysis, "refit", AS_IT_IS, calibration=IMAGES)[0]
        assert dead.max() < 1e-9
        assert len(np.unique(dead)) == 8
