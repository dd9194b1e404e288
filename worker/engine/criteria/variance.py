"""Variance of feature maps over images and positions (Polyak and Wolf, 2015)."""

from __future__ import annotations

import numpy as np

from worker.engine.criteria.activations import rows_per_place
from worker.engine.criteria.calibrated import CalibratedOptions
from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA
from worker.engine.criteria.width import Floats, Width


@CRITERIA.register(
    "variance",
    title="Feature-map variance",
    summary="Feature maps that hardly vary go: a bias can stand in for them.",
    paper="Polyak and Wolf, Channel-Level Acceleration of Deep Face Representations, IEEE Access 3, 2015",
    cost="a forward pass over the calibration images",
    uses=("activations",),
    data="images",
    exactness="adapted",
    options=CalibratedOptions,
)
def variance(evidence: Evidence, width: Width, options: CalibratedOptions) -> list[Floats]:
    """The variance of a channel's values over all images and positions."""
    return rows_per_place(evidence, width, options.calibration_images, _moments, _variance)


def _moments(maps: np.ndarray) -> Floats:
    """(channels, images, ...) -> (2, channels): per image the means of the values and of their squares, summed."""
    values = maps.reshape(*maps.shape[:2], -1).astype(np.float64)
    return np.stack([values.mean(axis=2).sum(axis=1), np.square(values).mean(axis=2).sum(axis=1)])


def _variance(sums: Floats, count: int) -> Floats:
    mean, square = sums / count
    return np.asarray(np.maximum(square - np.square(mean), 0.0))
