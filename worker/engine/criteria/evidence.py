"""What a criterion may look at: the analysed model, calibration images, and what was worked out from them once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from worker.engine.criteria.width import Width
from worker.engine.graph.analysis import Analysis


@dataclass(frozen=True)
class Calibration:
    """Images as the model takes them, (N, ...) float32, and their class numbers (N,), None where unlabelled."""

    images: np.ndarray
    labels: np.ndarray | None = None

    def first(self, count: int) -> Calibration:
        return Calibration(self.images[:count], None if self.labels is None else self.labels[:count])


class Evidence:
    """Shared by the calls of one criterion for all widths of a model."""

    def __init__(self, analysis: Analysis, seed: int, calibration: Calibration | None) -> None:
        self.analysis = analysis
        self.seed = seed
        self.calibration = calibration

    @cached_property
    def widths(self) -> tuple[Width, ...]:
        return tuple(Width(self.analysis, groups) for groups in self.analysis.widths)
