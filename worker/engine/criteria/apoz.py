"""Average percentage of zeros (Hu et al., Network Trimming, 2016)."""

from __future__ import annotations

import numpy as np

from worker.engine.criteria.activations import rows_per_place
from worker.engine.criteria.calibrated import CalibratedOptions
from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA
from worker.engine.criteria.width import Floats, Width


@CRITERIA.register(
    "apoz",
    title="APoZ",
    summary="Feature maps that are zero most often go.",
    paper="Hu et al., Network Trimming: A Data-Driven Neuron Pruning Approach, 2016, arXiv 1607.03250, eq. 1",
    cost="a forward pass over the calibration images",
    uses=("activations",),
    data="images",
    exactness="adapted",
    options=CalibratedOptions,
)
def apoz(evidence: Evidence, width: Width, options: CalibratedOptions) -> list[Floats]:
    """The share of a feature map's values that are not zero, after the non-linearity."""
    return rows_per_place(
        evidence, width, options.calibration_images, _shares, lambda sums, count: np.asarray(sums[0] / count)
    )


def _shares(maps: np.ndarray) -> Floats:
    """(channels, images, ...) -> (1, channels)."""
    active = (maps != 0).reshape(*maps.shape[:2], -1)
    return np.asarray(active.mean(axis=2).sum(axis=1))[None]
