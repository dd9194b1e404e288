"""The diagonal of the Fisher information of channel gates (LeCun et al. 1990; Theis et al. 2018; Liu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from worker.engine.criteria.calibrated import CalibratedSum
from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.gates import gated
from worker.engine.criteria.registry import CRITERIA
from worker.engine.criteria.width import Floats, Width
from worker.engine.graph.labels import Labels

if TYPE_CHECKING:
    import torch


class FisherOptions(CalibratedSum):
    """Every image has a gradient of its own, whatever the batch."""

    batch_size: int = Field(default=16, ge=1, le=4096, description="Images at once.")


@CRITERIA.register(
    "fisher",
    title="Fisher (OBD diagonal)",
    summary="Channels whose removal raises the loss least, by its second derivative, go: optimal brain damage with the "
    "Fisher information in place of the Hessian, gates of coupled channels taken together.",
    paper="Liu et al., Group Fisher Pruning, ICML 2021, arXiv 2108.00708, eq. 5; LeCun et al., Optimal Brain Damage, "
    "NeurIPS 1990",
    cost="a forward and a backward pass over the calibration images",
    uses=("activations", "gradients"),
    data="labels",
    exactness="adapted",
    options=FisherOptions,
)
def fisher(evidence: Evidence, width: Width, options: FisherOptions) -> list[Floats]:
    """Half the mean over images of (d loss / d gate) squared; the gate multiplies a unit wherever it is read."""
    slopes = evidence.once("fisher", lambda: _slopes(evidence, options))
    read = [width.per_unit(labels, slope) for labels, slope in slopes if (width.positions(labels) >= 0).any()]
    return [np.asarray(np.square(np.sum(read, axis=0)).mean(axis=1) / 2)] if read else []


def _slopes(evidence: Evidence, options: FisherOptions) -> list[tuple[Labels, Floats]]:
    """For each layer the channels that it reads, and d loss / d gate of each, (channels, images)."""
    from worker.engine.torch_form.loss import LossForm, no_gradient  # a job without gradients needs no torch

    model, places = gated(evidence.widths)
    if not places:  # what only the bodies of control flow read has no gates
        return []
    form = LossForm(model, *(place.tensor for place in places), classes=evidence.classes)
    images, labels = evidence.labelled(options.calibration_images)
    found: dict[str, list[Floats]] = {place.tensor: [] for place in places}
    axes = {place.tensor: place.axis for place in places}
    channels = {place.tensor: len(place.labels) for place in places}
    apart: set[str] | None = None
    for losses, _, inner in form.batches(images, labels, options.batch_size, differentiable_images=True):
        values = {name: value for name, value in zip(form.values, inner, strict=True) if value.requires_grad}
        if not values:  # integer images and integer weights
            raise no_gradient()
        if apart is None:
            apart = _with_images_first(losses, {n: v for n, v in values.items() if axes[n] != 0})
        for name, product in _products(losses.sum(), {n: v for n, v in values.items() if n in apart}).items():
            by_channel = product.movedim(axes[name], 0)[:, : len(losses)]
            found[name].append(by_channel.reshape(*by_channel.shape[:2], -1).sum(dim=2).numpy())
        mixed = [_products(loss, {n: v for n, v in values.items() if n not in apart}) for loss in losses]
        for name in mixed[0]:
            # Where samples x channels lie along the axis, only the image's own have a part in its loss.
            rows = (products[name].movedim(axes[name], 0).flatten(1).sum(dim=1) for products in mixed)
            of_each = [row.reshape(-1, channels[name]).sum(dim=0).numpy() for row in rows]
            found[name].append(np.stack(of_each, axis=1))
    return [(p.labels, np.concatenate(found[p.tensor], axis=1)) for p in places if found[p.tensor]]


def _products(loss: torch.Tensor, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Value x gradient of each value that the loss depends on."""
    import torch

    if not values:
        return {}
    gradients = torch.autograd.grad(loss, list(values.values()), allow_unused=True, retain_graph=True)
    pairs = zip(values.items(), gradients, strict=True)
    return {name: (value * gradient).detach().double() for (name, value), gradient in pairs if gradient is not None}


def _with_images_first(losses: torch.Tensor, values: Mapping[str, torch.Tensor]) -> set[str]:
    """The values along whose first axis the images lie, so that one backward pass tells them apart: the loss of an
    image depends on its own row alone. Others are sequences with the batch second, or have heads in their batch."""
    rows = {0: losses[0], len(losses) - 1: losses[-1]}
    used = {row: {n: _used_rows(p) for n, p in _products(loss, values).items()} for row, loss in rows.items()}
    return {
        name
        for name in values
        if all(used[row].get(name, set()) <= {row} for row in rows) and any(used[row].get(name) for row in rows)
    }


def _used_rows(product: torch.Tensor) -> set[int]:
    return set(product.reshape(len(product), -1).any(dim=1).nonzero().flatten().tolist())
