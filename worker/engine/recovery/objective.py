"""What a training strives for: labels, the original's outputs, or both."""

from __future__ import annotations

import math
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from worker.engine.data import Dataset
from worker.engine.errors import EngineError
from worker.engine.measure.classifier import find_head
from worker.engine.recovery.distillation import Teacher
from worker.engine.recovery.imitation import NOTHING_TO_IMITATE, Imitation, outputs_beside
from worker.engine.recovery.labels import Labels
from worker.engine.recovery.training_options import FinetuneOptions
from worker.engine.torch_form import TorchForm

_OBSERVED = 128
"""Training images that tell how much the original's outputs vary."""


class Objective(Protocol):
    """What a training strives for, and how it is judged, on the values that it names."""

    values: tuple[str, ...]

    def loss(self, outputs: tuple[torch.Tensor, ...], images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What is trained on a batch, a scalar."""
        ...

    def judge(
        self, outputs: tuple[torch.Tensor, ...], images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, int | None]:
        """The mean validation loss of a batch, and how many predictions are right where there are labels."""
        ...


def needs_teacher(form: TorchForm, dataset: Dataset, options: FinetuneOptions) -> bool:
    """Whether the original is to be at hand in a training: where there are no labels, where distillation is not
    switched off, and where the model has outputs that labels tell nothing of, which training would change."""
    return options.distillation != 0 or not dataset.labelled or bool(_others(form, dataset))


def objective_of(
    form: TorchForm,
    dataset: Dataset,
    options: FinetuneOptions,
    device: torch.device,
    teacher: TorchForm | None,
) -> Objective:
    """Raises EngineError where the outputs do not fit the labels, ValueError where a teacher is needed and missing."""
    if teacher is None:
        if options.distillation not in ("auto", 0) or not dataset.labelled:
            raise ValueError("distillation needs a teacher")
        return Labels(form, dataset, options.label_smoothing, None, 0.0)
    teacher.module.to(device)
    if not dataset.labelled:
        return _imitation(form, dataset, options, device, teacher)
    softened = None
    if options.distillation != 0:
        softened = Teacher(teacher, len(dataset.classes), options.temperature, device)
    labels = Labels(form, dataset, options.label_smoothing, softened, options.distillation)
    if not _others(form, dataset):
        return labels
    try:
        others = _imitation(form, dataset, options, device, teacher, _scores(teacher, dataset))
    except EngineError as error:
        if error.code != NOTHING_TO_IMITATE:
            raise
        return labels  # flags or numbers of things, say, that no gradient leads to
    return _LabelsAndOutputs(labels, others)


def _scores(form: TorchForm, dataset: Dataset) -> str:
    return find_head(form.model, len(dataset.classes)).logits


def _others(form: TorchForm, dataset: Dataset) -> tuple[str, ...]:
    """Outputs that do not follow from the class scores and that a trained weight reaches."""
    return outputs_beside(form.model, _scores(form, dataset), form.parameters)


class _LabelsAndOutputs:
    """A classifier with further outputs, an embedding say, that no label tells anything of: they are to stay what the
    original's are, however much of the scores' loss is distillation."""

    def __init__(self, labels: Labels, others: Imitation) -> None:
        self._labels, self._others = labels, others
        self.values = (*labels.values, *others.values)

    def loss(self, outputs: tuple[torch.Tensor, ...], images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        others = self._others.loss(outputs[1:], images, labels)
        return self._labels.loss(outputs[:1], images, labels) + others

    def judge(
        self, outputs: tuple[torch.Tensor, ...], images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        """Of the labels alone, which choose the epoch."""
        return self._labels.judge(outputs[:1], images, labels)


def _imitation(
    form: TorchForm,
    dataset: Dataset,
    options: FinetuneOptions,
    device: torch.device,
    teacher: TorchForm,
    apart: str | None = None,
) -> Imitation:
    images, _ = next(dataset.validation.batches(min(2, len(dataset.validation))))
    # The same ones whenever the training goes on, and in all of its processes.
    drawn = dataset.train.batches(min(options.batch_size, _OBSERVED), rng=np.random.default_rng([options.seed, 0]))
    observed = islice(drawn, math.ceil(_OBSERVED / options.batch_size))
    batches = (torch.from_numpy(batch).to(device) for batch, _ in observed)
    return Imitation(form, teacher, torch.from_numpy(images).to(device), batches, device, apart)
