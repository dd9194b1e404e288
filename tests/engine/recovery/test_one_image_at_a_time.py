"""Networks whose shapes were written out for one image: recovered and trained image by image, as if in batches."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.engine.graph.graph_builder import GraphBuilder
from tests.worker.networks import coloured_squares, unlabelled
from worker.engine.allocation import allocate, macs_limit
from worker.engine.criteria import score
from worker.engine.data import DataOptions, Dataset, InputSpec, open_dataset
from worker.engine.errors import EngineError
from worker.engine.graph import analyze
from worker.engine.recovery import FinetuneOptions, calibration_batches, finetune, reconstruct, reestimate_norms
from worker.engine.surgery import prune
from worker.engine.torch_form import build

SIZE = 12
PLACES = SIZE * SIZE


def shuffling(batch: int | str, *, norm: bool = False) -> onnx.ModelProto:
    """A channel shuffle between two convolutions; for a batch of one without an axis for the images."""
    g = GraphBuilder(seed=5)
    maps = g.conv(g.input((batch, 3, SIZE, SIZE)), 3, 16)
    maps = g.node("Relu", g.batch_norm(maps, 16) if norm else maps)
    apart, order, joined = ([8, 2, PLACES], [1, 0, 2], [1, 16, SIZE, SIZE])
    if batch != 1:
        apart, order, joined = [0, 8, 2, PLACES], [0, 2, 1, 3], [0, 16, SIZE, SIZE]
    shuffled = g.node("Reshape", maps, g.constant(np.array(apart)))
    shuffled = g.node("Reshape", g.node("Transpose", shuffled, perm=order), g.constant(np.array(joined)))
    pooled = g.node("GlobalAveragePool", g.node("Relu", g.conv(shuffled, 16, 8)))
    return g.model(g.node("MatMul", g.node("Flatten", pooled), g.weight(8, 4)))


def dataset(model: onnx.ModelProto, folder: Path, *, labels: bool) -> Dataset:
    path, images = folder / "images.npz", coloured_squares(80)
    path.write_bytes(images if labels else unlabelled(images))
    return open_dataset(path, InputSpec.of(model), DataOptions((0.5,), (0.25,)))


def weights(model: onnx.ModelProto) -> list[np.ndarray]:
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [array for array in arrays if array.dtype == np.float32]


def test_it_is_found_out_which_networks_take_batches() -> None:
    assert build(shuffling("n")).takes_batches
    assert not build(shuffling(1)).takes_batches
    g = GraphBuilder()
    assert build(g.model(g.conv(g.input((1, 3, SIZE, SIZE)), 3, 8))).takes_batches


def test_a_list_as_long_as_what_was_found_does_not_decide() -> None:
    g = GraphBuilder()
    maps = g.node("Relu", g.conv(g.input((1, 3, SIZE, SIZE)), 3, 8))
    assert build(g.model(maps, g.node("NonZero", maps))).takes_batches


def test_a_node_that_onnx_runtime_refuses_for_two_images_decides() -> None:
    g = GraphBuilder(17)
    pooled = g.node("GlobalAveragePool", g.node("Relu", g.conv(g.input((1, 3, SIZE, SIZE)), 3, 16)))
    boxes = g.node("Reshape", pooled, g.constant(np.array([0, 4, 4])))
    scores, most = g.constant(np.ones((1, 1, 4), np.float32)), g.constant(np.array([4]))
    form = build(g.model(pooled, g.node("NonMaxSuppression", boxes, scores, most)))
    assert not form.takes_batches
    with pytest.raises(RuntimeError, match="ONNX Runtime cannot run NonMaxSuppression"):
        form.module(torch.rand(2, 3, SIZE, SIZE))


def test_images_of_any_size_do_not_hide_that_they_come_alone(capfd: pytest.CaptureFixture[str]) -> None:
    g = GraphBuilder(seed=5)
    maps = g.node("Relu", g.conv(g.input((1, 3, "h", "w")), 3, 16))
    shuffled = g.node("Reshape", maps, g.constant(np.array([8, 2, -1])))
    shuffled = g.node("Reshape", g.node("Transpose", shuffled, perm=[1, 0, 2]), g.constant(np.array([1, 16, -1])))
    pooled = g.node("ReduceMean", shuffled, axes=[2], keepdims=0)
    assert not build(g.model(g.node("MatMul", pooled, g.weight(16, 4)))).takes_batches
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("labels", "distillation"), [(True, 0.0), (True, 0.5), (False, 0.0)])
def test_a_training_image_by_image_is_that_of_batches(tmp_path: Path, labels: bool, distillation: float) -> None:
    options = FinetuneOptions(epochs=2, batch_size=16, learning_rate=0.05, distillation=distillation, device="cpu")
    trained = []
    for batch in (1, "n"):
        model = shuffling(batch)
        analysis = analyze(model)
        plan = allocate(analysis, score(analysis, "l2"), [macs_limit(analysis, 0.6)]).plan
        form = build(prune(analysis, plan))
        training = finetune(form, dataset(model, tmp_path, labels=labels), options, teacher=build(model))
        assert training.best_epoch > 0
        trained.append(weights(form.write_back()))
    for single, together in zip(*trained, strict=True):
        np.testing.assert_allclose(single, together, rtol=1e-3, atol=1e-5)


def test_norms_keep_their_averages_where_images_come_one_by_one(tmp_path: Path) -> None:
    model = shuffling(1, norm=True)
    form = build(model)
    before = {average.path: form.module.get_buffer(average.path).clone() for average in form.averages}
    data, options = dataset(model, tmp_path, labels=True), FinetuneOptions(epochs=1, learning_rate=0.05, device="cpu")
    assert finetune(form, data, options).best_epoch == 1
    assert before
    assert all((form.module.get_buffer(path) == values).all() for path, values in before.items())


def test_a_model_that_takes_several_images_and_no_others_is_told_what_to_do(tmp_path: Path) -> None:
    g = GraphBuilder(seed=5)
    maps = g.node("Relu", g.conv(g.input((4, 3, SIZE, SIZE)), 3, 16))
    shuffled = g.node("Transpose", g.node("Reshape", maps, g.constant(np.array([8, 8, PLACES]))), perm=[1, 0, 2])
    model = g.model(g.node("Reshape", shuffled, g.constant(np.array([4, 16, SIZE, SIZE]))))
    data = dataset(model, tmp_path, labels=False)
    with pytest.raises(EngineError, match="single image") as refused:
        calibration_batches(data.train, 24, (build(model),))
    assert "dynamic batch" in refused.value.hint


def test_recovery_without_training_goes_image_by_image(tmp_path: Path) -> None:
    model = shuffling(1, norm=True)
    data = dataset(model, tmp_path, labels=False)
    analysis = analyze(model)
    plan = allocate(analysis, score(analysis, "l2"), [macs_limit(analysis, 0.6)]).plan
    original, pruned = build(model), build(prune(analysis, plan))
    batches = calibration_batches(data.train, 24, (original, pruned))
    assert [len(batch) for batch in batches] == [1] * 24
    fits = reconstruct(analysis, plan, original, pruned, batches)
    assert fits
    assert all(fit.error_after < fit.error_before for fit in fits)
    assert reestimate_norms(build(model), batches) == 1
