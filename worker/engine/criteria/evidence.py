"""What a criterion may look at: the analysed model, calibration images, and what was worked out from them once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, cast

import numpy as np

from worker.engine.criteria.width import Width
from worker.engine.data import Split
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis

T = TypeVar("T")


@dataclass(frozen=True)
class Calibration:
    """Images as the model takes them, (N, ...) float32, and their class numbers (N,), None where unlabelled; `classes`
    is how many the data has, where that is known. Images of a split are read as they are indexed: all at once they may
    not fit into memory."""

    images: np.ndarray | Split
    labels: np.ndarray | None = None
    classes: int | None = None

    def first(self, count: int) -> Calibration:
        labels = None if self.labels is None else self.labels[:count]
        return Calibration(self.images[:count], labels, self.classes)


class Evidence:
    """Shared by the calls of one criterion for all widths of a model."""

    def __init__(self, analysis: Analysis, seed: int, calibration: Calibration | None) -> None:
        self.analysis = analysis
        self.seed = seed
        self.calibration = calibration
        self._found: dict[str, object] = {}

    @cached_property
    def widths(self) -> tuple[Width, ...]:
        return tuple(Width(self.analysis, groups) for groups in self.analysis.widths)

    @property
    def classes(self) -> int | None:
        """Of the data, None where that is not known."""
        return self.calibration.classes if self.calibration is not None else None

    def images(self, count: int) -> Calibration:
        """The first calibration images. Raises EngineError where there are none."""
        if self.calibration is None:
            raise EngineError("needs_data", "The criterion needs images.", "Give the job a dataset.")
        return self.calibration.first(count)

    def labelled(self, count: int) -> tuple[np.ndarray | Split, np.ndarray]:
        """The first calibration images and their labels. Raises EngineError where there are none."""
        found = self.images(count)
        if found.labels is None:
            raise EngineError("needs_data", "The criterion needs labels.", "Give the job a labelled dataset.")
        return found.images, found.labels

    def once(self, what: str, find: Callable[[], T]) -> T:
        """The result of `find`, worked out at the first call with this name."""
        if what not in self._found:
            self._found[what] = find()
        return cast(T, self._found[what])
