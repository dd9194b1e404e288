"""Whole-network masks drawn at random, with exact counts in every layer (Anwar and Sung, arXiv 1610.09639, section 3).

A draw follows from the seed and its number alone: any worker that draws mask 17 draws the same one. Masks come in
families, which have what they draw for a network's first part in common, so that it is computed once for all of them;
in the paper each mask is a family of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.kernels.layouts.free import kernel_count
from worker.engine.kernels.targets import Target
from worker.engine.masks.prefix import Prefix
from worker.engine.surgery import Plan

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Draws:
    """How masks are numbered: `family` masks in a row have in common what they draw in the `prefix`."""

    seed: int
    family: int = 1
    prefix: Prefix | None = None

    def of_group(self, number: int, group: int) -> np.random.Generator:
        return self._generator(number, group, self.prefix is not None and group in self.prefix.groups)

    def of_node(self, number: int, node: int) -> np.random.Generator:
        return self._generator(number, node, self.prefix is not None and node in self.prefix.nodes)

    def families(self, count: int) -> list[range]:
        """The numbers of `count` masks, family by family."""
        size = self.family if self.prefix is not None else 1
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def _generator(self, number: int, place: int, shared: bool) -> np.random.Generator:
        return np.random.default_rng([self.seed, number - number % self.family if shared else number, place])


def draw_plan(analysis: Analysis, kept: Counts, draws: Draws, number: int) -> Plan:
    """Draw `number` of the channels that stay: `kept[g]` units of each group."""
    masks = {}
    for group in analysis.groups:
        rng = draws.of_group(number, group.id)
        masks[group.id] = np.zeros(len(group), dtype=bool)
        masks[group.id][rng.permutation(len(group))[: kept[group.id]]] = True
    return Plan(masks)


def draw_kernels(targets: Sequence[Target], sparsity: float, draws: Draws, number: int) -> Mapping[str, Mask]:
    """Draw `number` of the kernels that stay: (outputs, inputs) for each weight, an exact count in each layer."""
    masks = {}
    for target in targets:
        rng = draws.of_node(number, target.node)
        mask = np.zeros(target.kernels, dtype=bool)
        mask[rng.permutation(target.kernels)[: kernel_count(target.kernels, sparsity)]] = True
        masks[target.weight] = mask.reshape(target.outputs, target.inputs)
    return masks
