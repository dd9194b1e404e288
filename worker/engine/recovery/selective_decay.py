"""Weights that are to go are made to vanish before the cut: decay on them alone grows while the whole network trains.

Selective weight decay (Tessier et al., "Rethinking Weight Decay for Efficient Neural Network Pruning", 2022):
loss += a/2 * sum of w^2 over the weights that will go, where a grows exponentially. Growing regularisation (Wang et
al., "Neural Pruning via Growing Regularization", ICLR 2021, GReg-1) lets it grow in even steps from nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from worker.engine.graph import Analysis
from worker.engine.methods import Options
from worker.engine.recovery.registry import RECOVERIES
from worker.engine.surgery import Plan
from worker.engine.torch_form import TorchForm

Growth = Literal["swd", "greg"]
_STEPS = 100
"""In which GReg-1 raises the decay."""


class GrowthOptions(Options):
    """Fields of a job's `regularisation`."""

    epochs: int = Field(default=1, ge=1, le=1000, description="Of the training before the cut.")
    last: float = Field(default=1.0, gt=0, le=1e4, description="The decay at the end.")


class ExponentialGrowthOptions(GrowthOptions):
    first: float = Field(default=1e-3, gt=0, le=1e4, description="The decay at the beginning.")


@RECOVERIES.register(
    "swd",
    title="Selective weight decay",
    summary="Before the cut the network trains under a decay of the weights that will go, which grows exponentially.",
    paper="Tessier et al., Rethinking Weight Decay for Efficient Neural Network Pruning, J. Imaging 8(3), 2022, "
    "arXiv 2011.10520",
    cost="that of finetuning the whole network",
    uses=("gradients",),
    data="images",
    exactness="adapted",
    options=ExponentialGrowthOptions,
    asked_for_by="regularisation.method",
)
def exponential(progress: float, first: float, last: float) -> float:
    """The factor a after this share of the training."""
    return float(first * (last / first) ** progress)


@RECOVERIES.register(
    "greg",
    title="Growing regularisation (GReg-1)",
    summary="Before the cut the network trains under a decay of the weights that will go, which grows in even steps.",
    paper="Wang et al., Neural Pruning via Growing Regularization, ICLR 2021, arXiv 2012.09243, section 3.1",
    cost="that of finetuning the whole network",
    uses=("gradients",),
    data="images",
    exactness="adapted",
    options=GrowthOptions,
    asked_for_by="regularisation.method",
)
def in_even_steps(progress: float, first: float, last: float) -> float:
    """The factor a after this share of the training; it begins at 0."""
    return last * int(progress * _STEPS) / _STEPS


@dataclass(frozen=True)
class SelectiveDecay:
    """`doomed` has the parameters, by their paths in the module, of which some weights will go: True where they do."""

    doomed: dict[str, torch.Tensor]
    growth: Growth
    first: float
    last: float

    def rate(self, progress: float) -> float:
        """The factor a at this share of the training. GReg-1 begins at 0 and knows no `first`."""
        return float(RECOVERIES.find(self.growth).function(progress, self.first, self.last))

    @torch.no_grad()
    def add_to_gradients(self, module: torch.nn.Module, progress: float) -> None:
        """What the penalty adds to the gradients of a step: a * w where w is doomed."""
        rate = self.rate(progress)
        for path, mask in self.doomed.items():
            parameter = module.get_parameter(path)
            if parameter.grad is not None:
                parameter.grad.add_(parameter * mask.to(parameter), alpha=rate)

    @torch.no_grad()
    def norm(self, module: torch.nn.Module) -> float:
        """Of all doomed weights together, Euclidean."""
        parts = [(module.get_parameter(path) * mask).double().square().sum() for path, mask in self.doomed.items()]
        return math.sqrt(sum(part.item() for part in parts))


def doomed_weights(analysis: Analysis, plan: Plan, form: TorchForm) -> dict[str, torch.Tensor]:
    """Path of each parameter of the form -> where all of its uses read or make a channel that the plan removes.

    `form` is that of the analysed model.
    """
    alive = analysis.alive(plan.kept)
    found: dict[str, np.ndarray] = {}
    for slot in analysis.propagation.slots:
        name = slot[0]
        if name not in form.parameters:
            continue
        shape = analysis.graph.shape(name)
        doomed = np.zeros(shape, dtype=bool)
        for axis, labels in enumerate(analysis.propagation.slot_dims(slot)):
            if labels is not None:
                doomed |= ~alive[labels].reshape(-1, *[1] * (len(shape) - axis - 1))
        found[name] = found[name] & doomed if name in found else doomed
    return {form.parameters[name]: torch.from_numpy(mask) for name, mask in found.items() if mask.any()}
