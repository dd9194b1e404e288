"""Another order of a model's channels: every weight permuted so that the network computes the same.

A group's units may be put in any order if each dimension that has them runs through all of them in their own order,
perhaps several times (Concat) or each several times (Flatten). Slices and shuffles break that, and their groups stay in
the order they have.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.engine.graph.analysis import Analysis
from worker.engine.graph.labels import Dim
from worker.engine.graph.onnx_graph import Array

Indices = npt.NDArray[np.int64]
Orders = Mapping[int, Indices]
"""group id -> the units in their new order."""


class ChannelOrder:
    """Where the units of a model's groups stand, and where they go under new orders."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._group_of = np.full(len(analysis.roots), -1, dtype=np.int64)
        self._unit_of = np.full(len(analysis.roots), -1, dtype=np.int64)
        for group in analysis.groups:
            self._group_of[group.units] = group.id
            self._unit_of[group.units] = np.arange(len(group))
        self.movable = self._movable()
        """Groups whose units may be reordered."""

    def group(self, labels: Dim) -> int | None:
        """The group that a dimension runs through exactly once, in its own order; None where there is none."""
        if labels is None:
            return None
        roots = self._analysis.roots[labels]
        group = int(self._group_of[roots[0]])
        whole = group >= 0 and np.array_equal(roots, self._analysis.groups[group].units)
        return group if whole else None

    def indices(self, labels: Dim, orders: Orders) -> Indices | None:
        """Old indices of a dimension in their new order; None where nothing moves."""
        if labels is None:
            return None
        moved = np.arange(len(labels), dtype=np.int64)
        for start, stop, group, repeats in self._runs(labels):
            if group in orders:
                places = np.arange(start, stop, dtype=np.int64).reshape(-1, repeats)
                moved[start:stop] = places[orders[group]].ravel()
        return None if np.array_equal(moved, np.arange(len(labels))) else moved

    def _runs(self, labels: npt.NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
        """(start, stop, group, repeats) of each pass through a group; repeats 0 where it is not a whole one."""
        roots = self._analysis.roots[labels]
        groups, units = self._group_of[roots], self._unit_of[roots]
        breaks = np.flatnonzero((np.diff(groups) != 0) | (np.diff(units) < 0)) + 1
        bounds = [0, *breaks.tolist(), len(labels)]
        runs = []
        for start, stop in itertools.pairwise(bounds):
            group = int(groups[start])
            if group < 0:
                continue
            size = len(self._analysis.groups[group])
            repeats, rest = divmod(stop - start, size)
            whole = rest == 0 and np.array_equal(units[start:stop], np.repeat(np.arange(size), repeats))
            runs.append((start, stop, group, repeats if whole else 0))
        return runs

    def _movable(self) -> frozenset[int]:
        p = self._analysis.propagation
        dims = [dim for tensor in p.tensors.values() for dim in tensor]
        dims += [dim for slot in p.slots for dim in p.slot_dims(slot)]
        fixed: set[int] = set()
        seen: set[int] = set()
        for labels in dims:
            if labels is not None and id(labels) not in seen:
                seen.add(id(labels))
                fixed.update(group for _, _, group, repeats in self._runs(labels) if repeats == 0)
        return frozenset(group.id for group in self._analysis.groups) - fixed


@dataclass(frozen=True)
class Reordered:
    """Weights in their new order: those that replace one of the same name, those beside it, and who reads the latter
    (node and input position -> name)."""

    replaced: dict[str, Array]
    added: dict[str, Array]
    renamed: dict[tuple[int, int], str]


def reorder(analysis: Analysis, orders: Orders) -> Reordered:
    """Every constant of the model that the new orders touch."""
    places, graph, p = ChannelOrder(analysis), analysis.graph, analysis.propagation
    stored = {tensor.name for tensor in graph.proto.initializer}
    result = Reordered({}, {}, {})
    for slot in p.slots:
        name, user, at = slot
        indices = [places.indices(dim, orders) for dim in p.slot_dims(slot)]
        if all(index is None for index in indices):
            continue
        value = graph.array(name)
        for axis, index in enumerate(indices):
            if index is not None:
                value = np.take(value, index, axis=axis)
        uses = graph.consumers[name]
        if name in stored and (user < 0 or len(uses) == 1):
            result.replaced[name] = value
        else:
            fresh = f"{name}/ordered" if user < 0 else f"{name}/ordered_for_{user}_{at}"
            result.added[fresh] = value
            result.renamed.update({use: fresh for use in (uses if user < 0 else [(user, at)])})
    return result
