"""The loss of a classifier on labelled images, ready for differentiation, through its torch form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import torch
import torch.nn.functional as F

from worker.engine.data import Split
from worker.engine.errors import EngineError
from worker.engine.graph.inputs import declared_shape, given_inputs
from worker.engine.measure.classifier import Head, check_class_count, find_head, is_scores
from worker.engine.torch_form.builder import build
from worker.engine.torch_form.failures import as_engine_error
from worker.engine.torch_form.form import TorchForm

_HINT = "Check the model's input size and layout, or choose a criterion that needs no gradients, such as l2."


class LossForm:
    """The model as torch module up to its class scores, and the loss on labelled images."""

    def __init__(self, model: onnx.ModelProto, *values: str, classes: int | None = None) -> None:
        """`classes`: of the labels, as far as known; which of several outputs are the scores is told by it."""
        self.form: TorchForm = build(model)
        self.head = find_head(self.form.model, classes)
        self.values = tuple(value for value in values if value in self.form.values)
        self.network = self.form.up_to(self.head.logits, *self.values).eval()
        declared = declared_shape(given_inputs(model)[0]) or [None]
        self._fixed_batch = declared[0] if isinstance(declared[0], int) else None

    def batches(
        self, images: np.ndarray | Split, labels: np.ndarray, size: int, *, differentiable_images: bool = False
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]]:
        """For each batch the loss of each image (B,), the labels (B,), and the inner values.

        A batch of a model with a fixed one is filled up with images again, of which the inner values alone tell. With
        `differentiable_images` inner values have a gradient also where no trained weight stands in front of them.
        """
        size = self._fixed_batch or size
        for start in range(0, len(images), size):
            chosen = np.arange(start, min(start + size, len(images)))
            truth = torch.from_numpy(labels[chosen])
            batch = torch.from_numpy(images[np.resize(chosen, self._fixed_batch or len(chosen))])
            batch.requires_grad_(differentiable_images and batch.is_floating_point())
            with as_engine_error("torch_form_failed", f"The model does not run on images {tuple(batch.shape)}", _HINT):
                logits, *inner = self.network(batch)
                if not is_scores(logits.shape, len(batch)):
                    raise ValueError(f"it gives {tuple(logits.shape)} for {len(batch)} images")
                scores = rows_of_scores(logits, len(batch))[: len(chosen)]
            check_class_count(scores.shape[1], int(truth.max()) + 1, self.head)
            found = losses(self.head, scores, truth)
            if not torch.isfinite(found).all():
                raise EngineError(
                    "not_finite",
                    "The loss of some of the job's images is NaN or infinite, and has no gradient.",
                    "Check data.mean and data.std, or choose a criterion that needs no images, such as l2.",
                )
            yield found, truth, tuple(inner)


def rows_of_scores(values: torch.Tensor, images: int) -> torch.Tensor:
    """The scores of so many images, also where they have lost an axis of length one, as (N, K) in float32."""
    return values.reshape(images, -1).float()


def losses(head: Head, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each image, (B,), from scores (B, K) before the final activation."""
    if not head.is_yes_or_no(scores.shape[1]):
        return F.cross_entropy(scores, labels, reduction="none")
    truth = labels.unsqueeze(1) if scores.shape[1] == 1 else F.one_hot(labels, scores.shape[1])
    return F.binary_cross_entropy_with_logits(scores, truth.to(scores.dtype), reduction="none").mean(dim=1)


def no_gradient() -> EngineError:
    return EngineError(
        "no_gradient",
        "No gradient of the loss reaches what the criterion scores.",
        "Choose a criterion that needs no gradients, such as l2 or reconstruction.",
    )
