"""Mask layouts: exact counts, the right structure, and the most important weights."""

import numpy as np
import pytest

from models_store.documents.kernels import Kernels
from worker.engine.errors import EngineError
from worker.engine.kernels.layouts import GRANULARITIES, mask_of
from worker.engine.kernels.layouts.pattern import PatternOptions


def _importance(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def _mask(name: str, importance: np.ndarray, sparsity: float, **options: int) -> np.ndarray:
    mask = mask_of(name, importance, PatternOptions(sparsity=sparsity, **options))
    assert not isinstance(mask, str), mask
    assert mask.shape == importance.shape
    return mask


def test_free_removes_exactly_the_weakest_kernels() -> None:
    importance = _importance(16, 8, 3, 3)
    mask = _mask("free", importance, 0.6)
    whole = mask.reshape(16, 8, 9)
    assert (whole.all(axis=2) == whole.any(axis=2)).all()
    gone = ~whole.any(axis=2)
    assert gone.sum() == round(0.6 * 128)
    sums = importance.sum(axis=(2, 3))
    assert sums[gone].max() <= sums[~gone].min()


def test_pattern_keeps_as_many_weights_everywhere_in_few_shapes() -> None:
    importance = _importance(32, 16, 3, 3)
    mask = _mask("pattern", importance, 5 / 9, patterns=6).reshape(-1, 9)
    assert (mask.sum(axis=1) == 4).all()
    library = np.unique(mask, axis=0)
    assert len(library) <= 6
    flat = importance.reshape(-1, 9)
    kept = (flat * mask).sum(axis=1)
    for shape in library:
        assert (kept >= (flat * shape).sum(axis=1) - 1e-12).all()


def test_the_library_of_patterns_is_what_most_kernels_would_choose() -> None:
    shapes = np.zeros((3, 9))
    for shape, places in zip(shapes, ([0, 1, 3, 4], [4, 5, 7, 8], [2, 4, 6, 8]), strict=True):
        shape[places] = 1.0
    wanted = np.repeat(shapes, [16, 40, 8], axis=0)  # 64 kernels, out of order of how common their shapes are
    importance = (wanted + 0.1 * _importance(64, 9)).reshape(8, 8, 3, 3)
    mask = _mask("pattern", importance, 5 / 9, patterns=2).reshape(-1, 9)
    assert {row.tobytes() for row in mask} == {row.tobytes() for row in shapes[:2].astype(bool)}
    assert (mask[:56] == wanted[:56].astype(bool)).all()


@pytest.mark.parametrize(("sparsity", "stride"), [(0.5, 2), (2 / 3, 3), (0.75, 4)])
def test_strided_shares_the_offset_of_an_input_channel(sparsity: float, stride: int) -> None:
    importance = _importance(8, 16, 3, 3)
    mask = _mask("strided", importance, sparsity).reshape(8, 16, 9)
    assert (mask == mask[:1]).all()
    for channel in range(16):
        offset = int(np.flatnonzero(mask[0, channel])[0])
        assert np.flatnonzero(mask[0, channel]).tolist() == list(range(offset, 9, stride))
        totals = [importance[:, channel].reshape(8, 9)[:, o::stride].sum() for o in range(stride)]
        assert totals[offset] == max(totals)


@pytest.mark.parametrize(("sparsity", "n"), [(0.25, 3), (0.5, 2), (0.75, 1)])
def test_n_of_four_input_channels(sparsity: float, n: int) -> None:
    importance = _importance(8, 16, 3, 3)
    mask = _mask("n_m", importance, sparsity)
    fours = mask.reshape(8, 4, 4, 3, 3)
    assert (fours.sum(axis=2) == n).all()
    values = importance.reshape(8, 4, 4, 3, 3)
    weakest_kept = np.where(fours, values, np.inf).min(axis=2)
    strongest_gone = np.where(fours, -np.inf, values).max(axis=2)
    assert (strongest_gone <= weakest_kept).all()


def test_the_last_four_input_channels_may_be_fewer() -> None:
    importance = _importance(8, 11, 3, 3)
    mask = _mask("n_m", importance, 0.5)
    assert (mask[:, :8] == _mask("n_m", importance[:, :8], 0.5)).all()
    assert (mask[:, 8:].sum(axis=1) == 2).all()
    assert (np.where(mask, np.inf, importance)[:, 8:].argmin(axis=1) == importance[:, 8:].argmin(axis=1)).all()


def test_layers_that_do_not_fit_say_why() -> None:
    assert "4 are needed" in str(mask_of("n_m", _importance(8, 3, 3, 3), PatternOptions(sparsity=0.5)))
    assert "a pattern needs 4" in str(mask_of("pattern", _importance(8, 8, 1, 1), PatternOptions(sparsity=0.5)))
    assert "fewer than the stride" in str(mask_of("strided", _importance(8, 8, 1, 1), PatternOptions(sparsity=0.5)))
    with pytest.raises(EngineError, match="no granularity 'diagonal'") as refusal:
        mask_of("diagonal", _importance(8, 8, 3, 3), PatternOptions(sparsity=0.5))
    assert all(method.name in refusal.value.hint for method in GRANULARITIES)


def test_a_jobs_kernels_are_what_the_catalogue_says() -> None:
    fields = Kernels().model_dump()
    assert {method.name for method in GRANULARITIES} == set(Kernels.model_json_schema()["properties"]["layout"]["enum"])
    for method in GRANULARITIES:
        for name, option in method.options.model_fields.items():
            assert fields[name] == option.default, (method.name, name)
