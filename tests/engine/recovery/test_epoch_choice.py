"""Which epoch of a training is kept, where the network before it had been trained on the validation images, too."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from worker.engine.data import Dataset
from worker.engine.data.dataset import Split
from worker.engine.measure import evaluate
from worker.engine.recovery import FinetuneOptions, finetune
from worker.engine.recovery.finetune import beyond_chance
from worker.engine.torch_form import build

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def pixels(count, *, memory, noise, seed):
    """Images (N, 1, 1, 2) of a signal and of a memory, and the classes that the signal tells but for the `noise`; the
    memory tells the class of each image, noise and all, or nothing."""
    rng = np.random.default_rng(seed)
    signal = rng.integers(0, 2, count)
    labels = np.where(rng.random(count) < noise, 1 - signal, signal)
    remembered = labels if memory else rng.integers(0, 2, count)
    images = 2.0 * np.stack([signal, remembered], 1) - 1
    return images.reshape(count, 1, 1, 2).astype(np.float32), labels.astype(np.int64)


def split_of(images, labels):
    plain = np.ones(2, np.float32), np.zeros(2, np.float32)
    return Split(images, np.arange(len(images)), labels, *plain, "NCHW")


def reads(weights):
    """Scores of two classes from the two pixels."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[-w for w in weights], list(weights)]))
        network[1].bias.zero_()
    file = io.BytesIO()
    torch.onnx.export(
        network.eval(), torch.zeros(2, 2, 1, 1), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}}
    )
    return onnx.load_from_string(file.getvalue())


@pytest.mark.parametrize(
    ("start", "known", "noise", "kept", "on_both"),
    [
        pytest.param((0.0, 1.0), True, 0.0, "last", True, id="knows the validation images, and training helps"),
        pytest.param((0.0, 1.0), True, 0.5, "first", True, id="knows the validation images, and training does not"),
        pytest.param((1.0, 0.0), False, 1.0, "first", False, id="does not know them: they alone tell"),
    ],
)
def test_what_knows_the_validation_images_is_not_judged_by_them_alone(start, known, noise, kept, on_both):
    train = split_of(*pixels(400, memory=False, noise=noise, seed=0))
    validation = split_of(*pixels(200, memory=known, noise=0.2 if known else 0.0, seed=1))
    test = split_of(*pixels(200, memory=False, noise=0.0, seed=2))
    form = build(reads(start))
    options = FinetuneOptions(epochs=3, learning_rate=0.1, device="cpu", batch_size=20, precision="float32")
    training = finetune(form, Dataset(("a", "b"), train, validation, test), options)
    first, *_, last = training.epochs
    assert first.validation_top1 > last.validation_top1
    assert training.judged_on_both == on_both
    assert (training.best_epoch == 0) == (kept == "first")
    before, after = (evaluate(each, test, 2).top1 for each in (reads(start), form.write_back()))
    assert after == (before if kept == "first" else 1.0)


@pytest.mark.parametrize(
    ("shares", "counts", "expected"),
    [
        ((0.95, 0.90), (5000, 5000), True),
        ((0.95, 0.90), (100, 100), False),
        ((0.90, 0.95), (5000, 5000), False),
        ((1.0, 1.0), (10, 10), False),
    ],
)
def test_three_standard_errors(shares, counts, expected):
    assert beyond_chance(*shares, *counts) == expected
