"""First-order Taylor expansion of the loss in the weights (Molchanov et al., CVPR 2019)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from worker.engine.criteria.calibrated import CalibratedOptions
from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA
from worker.engine.criteria.weights import constant_axis
from worker.engine.criteria.width import Floats, Width


class TaylorOptions(CalibratedOptions):
    """Gradients are those of the mean loss of a batch."""

    batch_size: int = Field(default=32, ge=1, le=4096, description="Images per gradient.")


@CRITERIA.register(
    "taylor",
    title="Taylor, first order",
    summary="Filters whose removal changes the loss least, by its first derivative, go.",
    paper="Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv 1906.10771, eq. 8",
    cost="a forward and a backward pass over the calibration images",
    uses=("weights", "gradients"),
    data="labels",
    exactness="adapted",
    options=TaylorOptions,
)
def taylor(evidence: Evidence, width: Width, options: TaylorOptions) -> list[Floats]:
    """(Sum over a filter of gradient x weight) squared, the mean over batches; a row per coupled weight."""
    changes = evidence.once("taylor", lambda: _changes(evidence, options))
    rows = []
    for source in width.sources:
        located = constant_axis(evidence.analysis, source)
        if located is not None and located in changes:
            per_batch = width.per_unit(source.labels, changes[located])  # (units, batches)
            rows.append(np.asarray(np.square(per_batch).mean(axis=1)))
    return rows


def _changes(evidence: Evidence, options: TaylorOptions) -> dict[tuple[str, int], Floats]:
    """(weight, axis) -> gradient x weight, summed over each filter, (channels, batches)."""
    from worker.engine.torch_form.loss import LossForm, no_gradient  # a job without gradients needs no torch

    form = LossForm(evidence.analysis.graph.model, classes=evidence.classes)
    wanted = {
        located for width in evidence.widths for s in width.sources if (located := constant_axis(evidence.analysis, s))
    }
    parameters = {name: form.form.module.get_parameter(path) for name, path in form.form.parameters.items()}
    found: dict[tuple[str, int], list[Floats]] = {place: [] for place in wanted if place[0] in parameters}
    for losses, _, _ in form.batches(*evidence.labelled(options.calibration_images), options.batch_size):
        if not losses.requires_grad:  # integer weights, as static quantisation writes
            raise no_gradient()
        form.network.zero_grad(set_to_none=True)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        for name, axis in found:
            weight = parameters[name]
            if weight.grad is not None:
                change = (weight.grad * weight).detach().double().movedim(axis, 0).flatten(1).sum(dim=1)
                found[name, axis].append(change.numpy())
    if wanted and not any(found.values()):
        raise no_gradient()
    return {place: np.stack(changes, axis=1) for place, changes in found.items() if changes}
