"""Learning from labels: a classifier's cross-entropy, as far as wished replaced by the divergence from the original."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from worker.engine.data import Dataset
from worker.engine.errors import EngineError
from worker.engine.measure.classifier import Head, check_class_count, find_head, is_scores
from worker.engine.recovery.distillation import Share, Teacher, share_of
from worker.engine.torch_form import TorchForm
from worker.engine.torch_form.failures import as_engine_error
from worker.engine.torch_form.loss import rows_of_scores

Outputs = tuple[torch.Tensor, ...]


class Labels:
    """What a training of a classifier strives for, and how it is judged."""

    def __init__(
        self, form: TorchForm, dataset: Dataset, smoothing: float, teacher: Teacher | None, distillation: Share
    ) -> None:
        """Raises EngineError where the model's outputs do not fit the labels. `distillation` is the teacher's share."""
        self._head, self._smoothing = find_head(form.model, len(dataset.classes)), smoothing
        self._teacher, self._share = teacher, distillation
        self.values: tuple[str, ...] = (self._head.logits,)
        images, _ = next(dataset.validation.batches(min(2, len(dataset.validation))))
        self._scores = _check(form, self._head, images, len(dataset.classes))

    def loss(self, outputs: Outputs, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = rows_of_scores(outputs[0], len(labels))
        losses = self._cross_entropy(logits, labels, self._smoothing)
        if self._teacher is None:
            return losses.mean()
        wanted = self._teacher.logits(images)
        share = share_of(self._share, self._predicted(wanted) == labels)
        return ((1 - share) * losses + share * self._teacher.divergence(logits, wanted)).mean()

    def judge(self, outputs: Outputs, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The mean loss without smoothing, and how many predictions are right."""
        logits = rows_of_scores(outputs[0], len(labels))
        return self._cross_entropy(logits, labels, 0.0).mean(), int((self._predicted(logits) == labels).sum())

    def _predicted(self, logits: torch.Tensor) -> torch.Tensor:
        return (logits[:, 0] > 0).long() if self._head.is_binary(self._scores) else logits.argmax(1)

    def _cross_entropy(self, logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        """(N,)."""
        if not self._head.is_yes_or_no(self._scores):
            return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        truth = labels.unsqueeze(1) if self._scores == 1 else F.one_hot(labels, self._scores)
        truth = truth * (1 - smoothing) + smoothing / max(self._scores, 2)
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)


def _check(form: TorchForm, head: Head, images: np.ndarray, classes: int) -> int:
    """Run one small batch: the number of scores per sample, if they fit the labels."""
    network = form.on_batches(form.up_to(head.logits).eval())
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    what = f"The model does not run on a batch of images {images.shape}"
    hint = "Export it with a dynamic batch axis, and check its input size."
    with torch.no_grad(), as_engine_error("torch_form_failed", what, hint):
        logits = network(torch.from_numpy(images).to(device))[0]
    if not is_scores(logits.shape, len(images)):
        raise EngineError(
            "not_a_classifier",
            f"Output {head.name!r} has the shape {tuple(logits.shape)} for {len(images)} images, "
            "not one score per image and class.",
            "Set data.labels to false: the pruned model then learns from the original on the images alone.",
        )
    scores = rows_of_scores(logits, len(images)).shape[1]
    check_class_count(scores, classes, head)
    return int(scores)
