"""Weights that stay zero while the rest of the network trains."""

from __future__ import annotations

import torch

from worker.engine.masks.weights import Masks
from worker.engine.methods import OnlyWith
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.torch_form import TorchForm


@RECOVERIES.register(
    "frozen_masks",
    title="Retraining with frozen masks",
    summary="Weights that a mask took out stay exactly zero through finetuning and in the file; what a job does by "
    "itself where its kernels go by a mask.",
    paper="Anwar and Sung, Coarse Pruning of Convolutional Neural Networks with Random Masks, arXiv 1610.09639",
    cost="that of finetuning",
    uses=("gradients",),
    data="images",
    only_with=(
        OnlyWith("granularity", ("free", "n_m", "pattern", "strided"), "grouped weights are gone, not masked."),
    ),
    asked_for_by="kernels.layout",
)
class FrozenMasks:
    """Sets the masked weights of a torch form to zero again after each step of an optimiser. What its momentum holds
    for them has no effect."""

    def __init__(self, form: TorchForm, masks: Masks) -> None:
        self._frozen = []
        for name, mask in masks.items():
            weight = form.module.get_parameter(form.parameters[name])
            self._frozen.append((weight, torch.from_numpy(~mask).to(weight.device)))

    @torch.no_grad()
    def apply(self) -> None:
        for weight, gone in self._frozen:
            weight.masked_fill_(gone, 0.0)
