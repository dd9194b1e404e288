"""Weights that stay zero while the rest of the network trains."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from worker.engine.methods import OnlyWith
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.torch_form import TorchForm

Masks = Mapping[str, npt.NDArray[np.bool_]]
"""Name of a stored weight -> the weights that stay, True, in its shape."""


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


def broken_masks(model: onnx.ModelProto, masks: Masks) -> tuple[str, ...]:
    """The weights of a model that are not exactly zero where their masks say so."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return tuple(
        name for name, mask in masks.items() if name not in stored or numpy_helper.to_array(stored[name])[~mask].any()
    )
