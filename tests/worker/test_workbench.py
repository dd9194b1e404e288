"""What the stages of an attempt share, without a job plane around it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from models_store.documents.export_spec import ExportedFile, MissingFile
from tests.worker.networks import coloured_squares, convnet, fixed_batch, unlabelled
from tests.worker.orders import order_for
from worker.engine.allocation import sensitivity as allocation_by_sensitivity
from worker.engine.criteria import Calibration, score
from worker.engine.data import Split
from worker.engine.probe import Probe, some_images
from worker.engine.surgery import Plan
from worker.runner.budget import latency_table
from worker.runner.estimating import curve, forecast, sensitivity
from worker.runner.further_files import further_files
from worker.runner.stages import estimate
from worker.runner.voice import Voice
from worker.runner.workbench import Workbench
from worker.work_folder import WorkFolder

MakeBench = Callable[..., Workbench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    """Benches for a model and its images, whose voice nobody hears."""
    silence = os.open(os.devnull, os.O_WRONLY)

    def make(model: onnx.ModelProto, images: bytes | None, **spec: Any) -> Workbench:
        folder = WorkFolder(tmp_path / "work")
        folder.create()
        order = order_for(folder, model, images, silence, **spec)
        return Workbench(order, folder, Voice(silence))

    yield make
    os.close(silence)


@pytest.mark.parametrize(("batch", "images", "given"), [(32, 28, 32), (None, 12, 1), (None, 80, 4), (3, 40, 3)])
def test_real_inputs_are_there_however_few_images(
    make_bench: MakeBench, batch: int | None, images: int, given: int
) -> None:
    model = convnet() if batch is None else fixed_batch(convnet(), batch)
    (feed,) = make_bench(model, unlabelled(coloured_squares(images))).real_inputs()
    assert feed["image"].shape == (given, 3, 12, 12)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images of a split are in memory at once, each time."""
    sizes: list[int] = []
    normalised = Split._normalised

    def told(split: Split, images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return normalised(split, images)

    monkeypatch.setattr(Split, "_normalised", told)
    return sizes


@pytest.mark.parametrize("criterion", ["refit", "apoz", "taylor", "fisher"])
def test_calibration_images_are_read_batch_by_batch(make_bench: MakeBench, read: list[int], criterion: str) -> None:
    bench = make_bench(convnet(), coloured_squares(240))
    assert bench.dataset is not None
    images, labels = next(bench.dataset.train.batches(150, rng=np.random.default_rng([bench.work.seed, 3])))
    expected = score(bench.analysis, criterion, calibration=Calibration(images, labels))
    read.clear()
    found = score(bench.analysis, criterion, calibration=bench.calibration(150))
    assert max(read) <= 64
    for group, scores in expected.items():
        np.testing.assert_array_equal(found[group], scores)


def test_images_of_a_probe_are_read_batch_by_batch(make_bench: MakeBench, read: list[int]) -> None:
    bench = make_bench(convnet(), coloured_squares(240))
    assert bench.dataset is not None
    split = bench.dataset.train
    images = some_images(bench.analysis, split, 20, 4, seed=2)
    drawn, labels = next(split.batches(20, rng=np.random.default_rng([2, 5])))
    read.clear()
    parts = list(images.batches(8))
    assert read == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate([inputs[0].numpy() for inputs, _ in parts]), drawn)
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts if part is not None]), labels)
    read.clear()
    Probe(bench.analysis, images, held_bytes=1).responses([Plan({})])
    assert set(read) == {1}


@pytest.mark.parametrize(("batch", "images"), [(32, 36), (None, 12)])
def test_int8_is_calibrated_and_compared_on_few_images(make_bench: MakeBench, batch: int | None, images: int) -> None:
    """36 images leave fewer than 32 to train on, and 7 to test with."""
    model = convnet() if batch is None else fixed_batch(convnet(), batch)
    bench = make_bench(model, unlabelled(coloured_squares(images)), export={"int8": True})
    (file,) = further_files(bench, bench.model_file.path)
    assert isinstance(file, ExportedFile)
    assert file.max_relative_error is not None
    assert 0 < file.max_relative_error < 0.2


def test_a_file_that_cannot_be_made_is_left_out_with_the_reason(make_bench: MakeBench) -> None:
    """Logits of millions are no numbers in float16; the other file is made all the same."""
    model = convnet()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "fc.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1e8), weight.name))
    bench = make_bench(model, coloured_squares(40), export={"float16": True, "float16_io": True, "int8": True})
    half, integers = further_files(bench, bench.model_file.path)
    assert isinstance(half, MissingFile)
    assert half.name == "pruned.fp16.onnx"
    assert "differs" in half.reason
    assert isinstance(integers, ExportedFile)
    assert [path.name for path in bench.folder.out.iterdir()] == [integers.name]


def test_rounds_do_not_count_the_seconds_of_their_stage_again(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(convnet(), coloured_squares(40), schedule={"steps": 3})
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with bench.voice.stage("iterate"):
        for step in (1, 2):
            bench.in_round(step, bench.spec)
            now += 5
            bench.checkpoint()
        bench.in_round(3, bench.spec)
    assert bench.voice.stage_seconds["iterate"] == 10


def test_seconds_of_an_earlier_attempt_are_taken_up(make_bench: MakeBench) -> None:
    first = make_bench(convnet(), coloured_squares(40))
    with first.voice.stage("baseline"):
        time.sleep(0.01)
    first.checkpoint()
    again = Workbench(first.order, first.folder, Voice(first.order.events_fd))
    assert again.voice.stage_seconds == first.voice.stage_seconds
    assert again.voice.stage_seconds["baseline"] >= 0.01


def test_a_budget_of_latency_is_planned_anew_once_channels_are_left_alone(make_bench: MakeBench) -> None:
    """Groups are numbered anew, and the table of layer times goes by their numbers."""
    bench = make_bench(convnet(width=64), None, budget={"latency_ratio": 0.7})
    first = estimate.run(bench)
    assert latency_table(bench) is latency_table(bench)
    bench.leave_alone(tuple(bench.analysis.groups[0].units.tolist()), "not proved")
    again = estimate.run(bench)
    assert len(again.kept) == len(first.kept) - 1
    assert latency_table(bench).full.tolist() == bench.analysis.full.tolist()


def test_a_forecast_counts_what_the_curve_has_worked_out_for_the_plan(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prune job that is forecast has no curve before it."""
    measured, times = allocation_by_sensitivity._measured, []

    def slowly(*arguments: Any) -> Any:
        times.append(1.0)
        time.sleep(times[-1])
        return measured(*arguments)

    monkeypatch.setattr(allocation_by_sensitivity, "_measured", slowly)
    bench = make_bench(convnet(), None, kind="estimate", pruning={"allocation": "sensitivity"}, macs_ratios=(0.7, 0.5))
    for stage in (sensitivity.STAGE, curve.STAGE):
        bench.write(stage, stage.run(bench))
    assert times == [1.0]
    seconds = {stage.name: stage.seconds for stage in forecast.run(bench).forecast.stages}
    assert times == [1.0]
    assert seconds["estimate"] >= 1.0
