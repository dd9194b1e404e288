"""Recovery on what leaves little room for it: large activations, and a single image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.worker.networks import coloured_squares, convnet, unlabelled
from tests.worker.orders import order_for
from worker.engine import recovery
from worker.engine.allocation import allocate, macs_limit
from worker.engine.criteria import score
from worker.engine.errors import EngineError
from worker.engine.surgery import prune
from worker.runner.recovery import Recovery, recover
from worker.runner.voice import Voice
from worker.runner.workbench import Workbench
from worker.work_folder import WorkFolder

Recover = Callable[..., Recovery]


@pytest.fixture
def recovered(tmp_path: Path) -> Iterator[Recover]:
    """What a job with so many images and this `recovery` makes of a network cut by half."""
    silence = os.open(os.devnull, os.O_WRONLY)

    def run(images: int, finetuning: dict[str, Any] | None = None, **asked_for: Any) -> Recovery:
        folder = WorkFolder(tmp_path / "work")
        folder.create()
        data = {"test_fraction": 0.5}  # of four images one is left to train on
        model, files = convnet(), unlabelled(coloured_squares(images))
        order = order_for(folder, model, files, silence, recovery=asked_for, data=data, finetuning=finetuning or {})
        bench = Workbench(order, folder, Voice(silence))
        analysis = bench.analysis
        plan = allocate(analysis, score(analysis, "l2"), [macs_limit(analysis, 0.5)]).plan
        return recover(bench, prune(analysis, plan), plan, lambda share: None)

    yield run
    os.close(silence)


def test_activations_that_cannot_be_held_are_computed_anew(recovered: Recover, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = recovered(40)
    assert whole.warnings == ()
    little = partial(recovery.calibration_batches, max_held_bytes=1000)
    monkeypatch.setattr(recovery, "calibration_batches", little)
    for asked_for in (None, True):
        found = recovered(40, reconstruction=asked_for)
        assert found.result.images == 8
        assert [layer.name for layer in found.result.layers] == [layer.name for layer in whole.result.layers]
        assert all(layer.error_after < layer.error_before for layer in found.result.layers)
        assert "8 training images, one at a time" in found.warnings[0]
    norms = recovered(40, reconstruction=False)
    assert (norms.result.images, norms.result.norms, norms.result.layers) == (8, 2, ())


def test_recovery_looks_at_images_as_trainings_show_them(recovered: Recover) -> None:
    """Norms of images with black rims have other statistics, and what is fitted to these other weights."""
    for asked_for in ({"reconstruction": False}, {}):
        found = [
            recovered(40, finetuning=shown, **asked_for).form.write_back()
            for shown in ({}, {"epochs": 3}, {"crop_padding": 4}, {"horizontal_flip": True})
        ]
        plain, longer, *augmented = [[tensor.raw_data for tensor in model.graph.initializer] for model in found]
        assert plain == longer
        assert all(weights != plain for weights in augmented)


def test_on_a_single_image_norms_alone_are_taken_anew(recovered: Recover) -> None:
    found = recovered(4)
    assert (found.result.images, found.result.norms, found.result.layers) == (1, 2, ())
    assert "there is a single one" in found.warnings[0]


def test_a_reconstruction_that_is_asked_for_is_refused_on_a_single_image(recovered: Recover) -> None:
    with pytest.raises(EngineError, match="a single one") as refused:
        recovered(4, reconstruction=True)
    assert refused.value.code == "too_few_images"
    assert "more images" in refused.value.hint
