"""Knowledge distillation (Hinton, Vinyals & Dean, arXiv 1503.02531): the pruned classifier learns from the original.

No label is needed for it; beside labels it tells how the original ranks the other classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field

from worker.engine.measure.classifier import find_head
from worker.engine.methods import Options
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.torch_form import TorchForm


class DistillationOptions(Options):
    """Fields of a job's `finetuning`."""

    distillation: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The share of the loss that is the divergence from the original's class scores instead of from the "
        "labels: 0 is no distillation; with 1 the labels choose the epoch and nothing else.",
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

    def loss(self, logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The divergence of the student's class probabilities from the original's, both softened by the temperature T,
        times T^2 (section 2 of the paper). logits: (N, scores), of the student on these images."""
        with torch.no_grad():
            wanted: torch.Tensor = self._network(images)[0].flatten(1).float()
        soft, goal = logits / self._temperature, wanted / self._temperature
        if self._head.activation == "sigmoid":
            entropy = F.binary_cross_entropy_with_logits(goal, goal.sigmoid())
            divergence = F.binary_cross_entropy_with_logits(soft, goal.sigmoid()) - entropy
        else:
            divergence = F.kl_div(soft.log_softmax(1), goal.log_softmax(1), reduction="batchmean", log_target=True)
        return divergence * self._temperature**2
