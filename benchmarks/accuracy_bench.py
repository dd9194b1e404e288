"""One row of the accuracy benchmark: a base cut by one method to one budget, recovered, and trained where asked."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch

from benchmarks.accuracy_bases import MEAN, STD, cifar10, folder, load, precision
from benchmarks.accuracy_methods import ALL_OURS, ALL_PEERS, cut_ours, cut_peer
from benchmarks.cifar_onnx import export
from worker.engine.criteria import Calibration
from worker.engine.data import Augmentation, DataOptions, Dataset, InputSpec, open_dataset
from worker.engine.graph import analyze
from worker.engine.measure import evaluate
from worker.engine.recovery import FinetuneOptions, calibration_batches, finetune, reconstruct, reestimate_norms
from worker.engine.recovery.calibration import AS_THEY_ARE
from worker.engine.recovery.distillation import Share
from worker.engine.torch_form import build

SCORING_IMAGES = 256
AUGMENTATION = Augmentation(crop_padding=4, horizontal_flip=True)
"""Of all images where something is trained, those of the recovery before it, too."""
_SAME_BASE = 1e-3
"""Accuracies of one base on several processors differ by less."""


def is_same_base(known: float, found: float) -> bool:
    """Whether rows of a base with the one accuracy go with those of a base with the other."""
    return abs(known - found) <= _SAME_BASE


class Settings(NamedTuple):
    """What is the same for all rows."""

    threads: int
    calibration_images: int


class Row(NamedTuple):
    """What one row measures. Ours is run on both forms of a ResNet, Torch-Pruning on option B."""

    base: str
    form: str
    side: str
    method: str
    factor: float
    seed: int

    def __str__(self) -> str:
        return f"{self.base}/{self.form}/{self.side}/{self.method}/{self.factor:g}x/seed {self.seed}"


class Bench:
    """One base in one form, with the images of one seed."""

    _known: dict[tuple[str, str, int], "Bench"] = {}  # noqa: RUF012

    def __init__(self, base: str, form: str, seed: int, settings: Settings) -> None:
        self.network, self.seed, self.settings = load(base, form), seed, settings
        path = folder() / f"{base}_{form}.onnx"
        if not path.exists():
            export(self.network, path)
        self.model = onnx.load(path)
        spec = InputSpec.of(self.model)
        self.data: Dataset = open_dataset(cifar10(), spec, DataOptions(MEAN, STD), seed)
        images, labels = next(self.data.train.batches(SCORING_IMAGES, rng=np.random.default_rng([seed, 3])))
        self.images = Calibration(images, labels)
        self.original = build(self.model)

    @classmethod
    def of(cls, row: Row, settings: Settings) -> "Bench":
        key = (row.base, row.form, row.seed)
        if key not in cls._known:
            cls._known.clear()
            cls._known[key] = cls(*key, settings)
        return cls._known[key]

    def accuracy(self, model: onnx.ModelProto) -> float:
        return evaluate(model, self.data.test, 10, self.settings.threads).top1

    def measure(self, row: Row) -> dict[str, Any]:
        """MACs and accuracies of a row; the seconds that choosing and recovering took."""
        start = time.monotonic()
        cut, recoveries = self._cut(row)
        result: dict[str, Any] = {
            "macs_ratio": analyze(cut).macs / analyze(self.model).macs,
            "calibration_images": self.settings.calibration_images,
            "seconds_to_cut": round(time.monotonic() - start, 1),
            "top1": {"cut": self.accuracy(cut)},
        }
        for name, recovery in recoveries.items():
            start = time.monotonic()
            recovered = recovery()
            result[f"seconds_{name}"] = round(time.monotonic() - start, 1)
            result["top1"][name] = self.accuracy(recovered)
        return result

    def train(
        self, row: Row, trainings: Sequence[tuple[int, float]], distillation: Share
    ) -> Iterator[tuple[int, float, float]]:
        """(epochs, learning rate) -> these and the accuracy; each starts at the row's best state without training.
        Both sides have the same `distillation`."""
        start = self.recovered(row)
        for epochs, rate in trainings:
            accuracy = self.trained(start, epochs, rate, distillation)
            print(f"{row}: {accuracy:.4f} after {epochs} epochs from {rate:g}", flush=True)
            yield epochs, rate, accuracy

    def recovered(self, row: Row) -> onnx.ModelProto:
        """A row's best state without training, recovered on images as the training will show them."""
        _, recoveries = self._cut(row, AUGMENTATION)
        return recoveries["reconstructed" if row.side == "ours" else "bn"]()

    def trained(self, start: onnx.ModelProto, epochs: int, rate: float, distillation: Share) -> float:
        """The accuracy after so many epochs; the teacher is the base."""
        form = build(start)
        options = FinetuneOptions(
            epochs=epochs,
            learning_rate=rate,
            crop_padding=AUGMENTATION.crop_padding,
            horizontal_flip=AUGMENTATION.horizontal_flip,
            precision=precision(),
            seed=self.seed,
            distillation=distillation,
        )
        finetune(form, self.data, options, teacher=self.original)
        return self.accuracy(form.write_back())

    def _cut(
        self, row: Row, augmentation: Augmentation = AS_THEY_ARE
    ) -> tuple[onnx.ModelProto, dict[str, Callable[[], onnx.ModelProto]]]:
        """The cut model, and the ways to win its accuracy back without training, on images so augmented."""
        if row.side == "torch-pruning":
            cut = cut_peer(ALL_PEERS[row.method], self.network, 1 / row.factor, self.images)
            return cut, {"bn": lambda: self._renormed(cut, augmentation)}
        ours = ALL_OURS[row.method]
        analysis, plan, cut = cut_ours(ours, self.model, 1 / row.factor, self.images, self.data, self.seed)

        def reconstructed() -> onnx.ModelProto:
            form = build(cut)
            reconstruct(analysis, plan, self.original, form, self._batches(augmentation, form, self.original))
            return form.write_back()

        return cut, {"bn": lambda: self._renormed(cut, augmentation), "reconstructed": reconstructed}

    def _renormed(self, cut: onnx.ModelProto, augmentation: Augmentation) -> onnx.ModelProto:
        form = build(cut)
        reestimate_norms(form, self._batches(augmentation, form))
        return form.write_back()

    def _batches(self, augmentation: Augmentation, *forms: Any) -> list[torch.Tensor]:
        images = self.settings.calibration_images
        return calibration_batches(self.data.train, images, forms, self.seed, augmentation=augmentation)
