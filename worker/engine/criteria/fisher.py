"""The diagonal of the Fisher information of channel gates (LeCun et al. 1990; Theis et al. 2018; Liu et al. 2021)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from worker.engine.criteria.calibrated import CalibratedSum
from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.gates import gated
from worker.engine.criteria.registry import CRITERIA
from worker.engine.criteria.width import Floats, Width
from worker.engine.graph.labels import Labels


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
    import torch  # a job without gradients needs no torch

    from worker.engine.torch_form.loss import LossForm

    model, places = gated(evidence.widths)
    form = LossForm(model, *(place.tensor for place in places))
    found: list[list[Floats]] = [[] for _ in places]
    for losses, _, values in form.batches(*evidence.labelled(options.calibration_images), options.batch_size):
        gradients = torch.autograd.grad(losses.sum(), values, allow_unused=True)
        products = {
            name: (value * gradient).detach().double()
            for name, value, gradient in zip(form.values, values, gradients, strict=True)
            if gradient is not None
        }
        for place, slopes in zip(places, found, strict=True):
            if place.tensor in products:
                product = products[place.tensor].movedim(place.axis, 0)[:, : len(losses)]
                slopes.append(product.flatten(2).sum(dim=2).numpy() if product.dim() > 2 else product.numpy())
    return [
        (place.labels, np.concatenate(slopes, axis=1)) for place, slopes in zip(places, found, strict=True) if slopes
    ]
