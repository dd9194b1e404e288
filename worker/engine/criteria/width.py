"""One width: the groups that an allocation chooses as one, their units in a row, and values carried over to them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from worker.engine.graph.analysis import Analysis, Group
from worker.engine.graph.labels import Labels
from worker.engine.graph.propagation import Source

Floats = npt.NDArray[np.float64]


class Width:
    """The units of the groups of one width (see Analysis.widths), in the order of the groups."""

    def __init__(self, analysis: Analysis, groups: Sequence[int]) -> None:
        self.analysis = analysis
        self.groups: tuple[Group, ...] = tuple(analysis.groups[g] for g in groups)
        self.units = np.concatenate([group.units for group in self.groups])
        self._order = np.argsort(self.units, kind="stable")

    def __len__(self) -> int:
        return len(self.units)

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The weights' axes whose slices are this width's filters; the same for each of its groups."""
        return self.groups[0].sources

    def positions(self, labels: Labels) -> npt.NDArray[np.int64]:
        """For each label the position of its unit in this width, -1 where it is no unit of it."""
        roots = self.analysis.roots[labels]
        ordered = self.units[self._order]
        found = np.minimum(np.searchsorted(ordered, roots), len(ordered) - 1)
        return np.where(ordered[found] == roots, self._order[found], -1)

    def per_unit(self, labels: Labels, values: Floats) -> Floats:
        """Sum values per label, (labels, ...), into values per unit, (units, ...)."""
        positions = self.positions(labels)
        member = positions >= 0
        total = np.zeros((len(self), *values.shape[1:]))
        np.add.at(total, positions[member], values[member])
        return total

    def by_group(self, values: Floats) -> dict[int, Floats]:
        """Values per unit, taken apart again: group id -> values."""
        ends = np.cumsum([len(group) for group in self.groups])[:-1]
        return {group.id: part for group, part in zip(self.groups, np.split(values, ends), strict=True)}
