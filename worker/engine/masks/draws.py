"""Whole-network masks drawn at random, with exact counts in every layer (Anwar and Sung, arXiv 1610.09639, section 3).

A draw follows from the seed and its number alone: any worker that draws mask 17 draws the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from worker.engine.graph.analysis import Analysis, Counts
from worker.engine.kernels.layouts.free import kernel_count
from worker.engine.kernels.targets import Target
from worker.engine.surgery import Plan

Mask = npt.NDArray[np.bool_]


def draw_plan(analysis: Analysis, kept: Counts, seed: int, number: int) -> Plan:
    """Draw `number` of the channels that stay: `kept[g]` units of each group."""
    masks = {}
    for group in analysis.groups:
        rng = np.random.default_rng([seed, number, group.id])
        masks[group.id] = np.zeros(len(group), dtype=bool)
        masks[group.id][rng.permutation(len(group))[: kept[group.id]]] = True
    return Plan(masks)


def draw_kernels(targets: Sequence[Target], sparsity: float, seed: int, number: int) -> Mapping[str, Mask]:
    """Draw `number` of the kernels that stay: (outputs, inputs) for each weight, an exact count in each layer."""
    masks = {}
    for target in targets:
        rng = np.random.default_rng([seed, number, target.node])
        mask = np.zeros(target.kernels, dtype=bool)
        mask[rng.permutation(target.kernels)[: kernel_count(target.kernels, sparsity)]] = True
        masks[target.weight] = mask.reshape(target.outputs, target.inputs)
    return masks
