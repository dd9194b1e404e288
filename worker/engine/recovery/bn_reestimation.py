"""BatchNormalization statistics taken anew: the exact mean and variance over calibration images, norm by norm.

The norms are taken in order, so each sees what the re-estimated norms before it make (unlike averages of batch
statistics, it needs no momentum). No labels, no gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from worker.engine.recovery.registry import RECOVERIES, CalibrationOptions
from worker.engine.recovery.walk import Walk, member
from worker.engine.torch_form import TorchForm


@dataclass(frozen=True)
class Statistics:
    """Mean and biased variance of each channel, float64."""

    mean: torch.Tensor
    variance: torch.Tensor

    @staticmethod
    def of(batches: Sequence[torch.Tensor]) -> Statistics:
        """batches: (N, C, ...)."""
        count, total = 0, torch.zeros(batches[0].shape[1], dtype=torch.float64)
        for batch in batches:
            count += batch[:, 0].numel()
            total += _channels(batch).sum(1).cpu()
        mean, squares = total / count, torch.zeros_like(total)
        for batch in batches:
            squares += (_channels(batch) - mean[:, None].to(batch.device)).square().sum(1).cpu()
        return Statistics(mean, squares / count)


@RECOVERIES.register(
    "bn_reestimation",
    title="BatchNormalization re-estimation",
    summary="Means and variances of every BatchNormalization are taken anew on training images; labels play no part.",
    paper='Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021, arXiv 2105.07576, section 3 (PreciseBN)',
    cost="a forward pass over the calibration images",
    uses=("activations",),
    data="images",
    exactness="adapted",
    options=CalibrationOptions,
    asked_for_by="recovery.bn_reestimation",
)
def reestimate_norms(
    form: TorchForm,
    batches: Sequence[torch.Tensor],
    on_progress: Callable[[float], None] = lambda fraction: None,
    walk_of: type[Walk] = Walk,
) -> int:
    """Set every running mean and variance to those of the batches (N, C, ...); the number of norms.

    walk_of: Rerun where the activations of all batches are too much to be held. Leaves the form changed;
    `form.write_back()` has the ONNX model.
    """
    norms = norm_statistics(form)
    walk = walk_of(form.module, batches)
    for done, node in enumerate(norms, start=1):
        x = node.all_input_nodes[0]
        walk.reach(x)
        set_statistics(form, norms[node], Statistics.of(walk.values(x)))
        on_progress(done / len(norms))
    return len(norms)


def norm_statistics(form: TorchForm) -> dict[fx.Node, tuple[fx.Node, fx.Node]]:
    """For each norm with statistics of its own, in order, the nodes that read its mean and its variance."""
    buffers = {average.path for average in form.averages}
    found = {}
    for node in form.module.graph.nodes:
        read = [n for n in node.all_input_nodes if n.op == "get_attr" and str(n.target) in buffers]
        if len(read) == 2:
            found[node] = (read[0], read[1])
    return found


@torch.no_grad()
def set_statistics(form: TorchForm, buffers: tuple[fx.Node, fx.Node], statistics: Statistics) -> None:
    for node, values in zip(buffers, (statistics.mean, statistics.variance), strict=True):
        buffer = member(form.module, node)
        buffer.copy_(values.to(buffer.dtype))


def _channels(batch: torch.Tensor) -> torch.Tensor:
    """(C, everything else), float64."""
    return batch.transpose(0, 1).flatten(1).double()
