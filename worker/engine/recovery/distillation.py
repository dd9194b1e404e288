"""Knowledge distillation (Hinton, Vinyals & Dean, arXiv 1503.02531): the pruned classifier learns from the original.

No label is needed for it; beside labels it tells how the original ranks the other classes. Left to itself it asks the
original only where that is right (Meng, Li, Zhao & Gong, Conditional Teacher-Student Learning, arXiv 1904.12399), so
that an original which does not know these images, or has their classes in another order, does no harm.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from worker.engine.measure.classifier import find_head
from worker.engine.methods import Options
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.torch_form import TorchForm
from worker.engine.torch_form.loss import rows_of_scores

Share = Literal["auto"] | Annotated[float, Field(ge=0, le=1)]
_SHARE = 0.5
"""Of the loss of an image that the original is right about, where the share is left open."""


class DistillationOptions(Options):
    """Fields of a job's `finetuning`."""

    distillation: Share = Field(
        default="auto",
        description="The share of the loss that is the divergence from the original's class scores instead of from the "
        "labels. auto: half of it for images that the original classifies rightly, nothing for others. 0 is no "
        "distillation; with 1 the labels choose the epoch and nothing else.",
    )
    temperature: float = Field(default=4.0, gt=0, le=100, description="Softens both sides.")


@RECOVERIES.register(
    "distillation",
    title="Distillation from the original",
    summary="While it is finetuned, a classifier learns how the original ranks the classes, beside the labels.",
    paper="Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531, section 2",
    cost="that of finetuning, and a forward pass of the original for each image",
    uses=("gradients",),
    data="images",
    options=DistillationOptions,
    asked_for_by="finetuning.distillation",
)
class Teacher:
    """The original, asked for its class scores on the images that the pruned model is trained on."""

    def __init__(self, form: TorchForm, classes: int, temperature: float, device: torch.device) -> None:
        self._head = find_head(form.model, classes)
        self._network = form.on_batches(form.up_to(self._head.logits).eval()).to(device)
        self._temperature = temperature

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """The original's, (N, scores)."""
        found: torch.Tensor = self._network(images)[0]
        return rows_of_scores(found, len(images))

    def divergence(self, logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """(N,): that of the student's class probabilities from the original's, both softened by the temperature T,
        times T^2 (section 2 of the paper). Both (N, scores)."""
        soft, goal = logits / self._temperature, wanted / self._temperature
        if self._head.is_yes_or_no(logits.shape[1]):
            entropy = F.binary_cross_entropy_with_logits(goal, goal.sigmoid(), reduction="none")
            found = (F.binary_cross_entropy_with_logits(soft, goal.sigmoid(), reduction="none") - entropy).mean(1)
        else:
            found = F.kl_div(soft.log_softmax(1), goal.log_softmax(1), reduction="none", log_target=True).sum(1)
        return found * self._temperature**2


def share_of(share: Share, right: torch.Tensor) -> torch.Tensor | float:
    """Of each image's loss; `right` (N,) says which the original classifies rightly."""
    return _SHARE * right.float() if share == "auto" else share
