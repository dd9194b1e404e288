"""Rank of feature maps (Lin et al., HRank, CVPR 2020)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from worker.engine.criteria.activations import rows_per_place
from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.registry import CRITERIA, ScoreOptions
from worker.engine.criteria.width import Floats, Width


class HrankOptions(ScoreOptions):
    """Ranks vary little from image to image, and take a singular value decomposition each."""

    calibration_images: int = Field(default=32, ge=1, le=65_536, description="Training images that are looked at.")


@CRITERIA.register(
    "hrank",
    title="HRank",
    summary="Feature maps of low rank go: they say little.",
    paper="Lin et al., HRank: Filter Pruning using High-Rank Feature Map, CVPR 2020, arXiv 2002.10179, eq. 4",
    cost="a forward pass, and a singular value decomposition of every feature map of every calibration image",
    uses=("activations",),
    data="images",
    exactness="adapted",
    options=HrankOptions,
)
def hrank(evidence: Evidence, width: Width, options: HrankOptions) -> list[Floats]:
    """The mean rank of a channel's feature maps, as matrices of height x width."""
    return rows_per_place(
        evidence, width, options.calibration_images, _ranks, lambda sums, count: np.asarray(sums[0] / count)
    )


def _ranks(maps: np.ndarray) -> Floats:
    """(channels, images, ...) -> (1, channels). A map without two axes is a matrix of one row."""
    spatial = maps.shape[2:]
    rows = spatial[0] if len(spatial) >= 2 else 1
    matrices = maps.reshape(*maps.shape[:2], rows, -1).astype(np.float32, copy=False)  # no SVD takes halves
    return np.asarray(np.linalg.matrix_rank(matrices).sum(axis=1, dtype=np.float64))[None]
