"""How good a plan is, in short: masks, BatchNormalization taken anew on a few training images, then a few validation
images (Li et al., EagleEye, ECCV 2020, arXiv 2007.02491, section 3.3: adaptive batch normalisation)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from worker.engine.data import Dataset
from worker.engine.graph.analysis import Analysis
from worker.engine.measure.classifier import find_head, losses, predicted_classes
from worker.engine.probe.images import some_images
from worker.engine.probe.masked_form import MaskedForm
from worker.engine.recovery.bn_reestimation import reestimate_norms
from worker.engine.recovery.calibration import calibration_batches
from worker.engine.surgery import Plan

_BATCH = 64


@dataclass(frozen=True, order=True)
class Value:
    """Of a plan on the validation images; the better one is the larger one."""

    top1: float
    gain: float
    """Minus the loss: decides between equals."""


class Objective:
    """Called with a plan, what the network is worth with it. Only training and validation images are looked at."""

    def __init__(
        self, analysis: Analysis, dataset: Dataset, *, images: int, calibration_images: int, seed: int = 0
    ) -> None:
        """Without `calibration_images` the norms stay as they are. Raises EngineError TOO_LARGE where too few of them
        can be held with their activations."""
        self._masked = MaskedForm(analysis)
        self._head = find_head(self._masked.form.model, len(dataset.classes))
        self._images = some_images(analysis, dataset.validation, images, len(dataset.classes), seed)
        self._calibration: list[torch.Tensor] = []
        if self._masked.form.averages and calibration_images:
            self._calibration = calibration_batches(dataset.train, calibration_images, (self._masked.form,), seed)

    @property
    def has_norms(self) -> bool:
        """Whether the network has statistics to take anew."""
        return bool(self._calibration)

    @property
    def images(self) -> int:
        """Validation images that decide."""
        return len(self._images)

    def __call__(self, plan: Plan) -> Value:
        self._masked.restore_norms()
        self._masked.silence(plan)
        if self._calibration:
            reestimate_norms(self._masked.form, self._calibration)
        right, loss = 0, 0.0
        for inputs, labels in self._images.batches(_BATCH):
            if labels is None:
                raise ValueError("an objective needs labels")
            scores = self._scores(inputs)[: len(labels)]
            right += int((predicted_classes(self._head, scores) == labels).sum())
            loss += float(losses(self._head, scores, labels).sum())
        return Value(right / self.images, -loss / self.images if np.isfinite(loss) else -np.inf)

    @torch.no_grad()
    def _scores(self, inputs: tuple[torch.Tensor, ...]) -> np.ndarray:
        output = self._masked.module(*inputs)[self._head.index].cpu().numpy()
        return self._head.scores(output, self._images.classes, len(inputs[0]))
