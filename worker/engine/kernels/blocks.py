"""Filters clustered into equal blocks that read the same input channels, so that the least importance is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_STEPS = 30
_RESTARTS = 6
_LARGE = 600
"""Output channels from which an assignment takes so long that one start has to do."""


@dataclass(frozen=True)
class Partition:
    """`block_of` (outputs,) gives each filter's block; `inputs[layer][block]` the channels it reads, ascending."""

    block_of: Indices
    inputs: tuple[tuple[Indices, ...], ...]
    kept: float
    """Share of the layers' importance that stays, their mean, 0..1."""


def partition(layers: Sequence[Floats], reads: Sequence[int], blocks: int, seed: int = 0) -> Partition:
    """Divide the filters of coupled layers, all of which have the same output channels, into `blocks` equal blocks.

    layers: importance of each kernel, (outputs, inputs of that layer). reads: input channels that a block of each layer
    reads. Alternates between the best channels for given blocks and the best equal blocks for given channels (an
    assignment problem); neither step loses importance, so it ends. The best of several random starts is kept.
    Raises ValueError where `blocks` does not divide the output channels.
    """
    outputs = len(layers[0])
    if outputs % blocks:
        raise ValueError(f"{blocks} blocks do not divide {outputs} output channels")
    shares = [layer / max(float(layer.sum()), 1e-300) / len(layers) for layer in layers]
    rng = np.random.default_rng(seed)
    starts = [rng.permutation(np.arange(outputs) % blocks) for _ in range(_RESTARTS if outputs < _LARGE else 1)]
    return max((_settle(shares, reads, blocks, start) for start in starts), key=lambda found: found.kept)


def _settle(shares: Sequence[Floats], reads: Sequence[int], blocks: int, block_of: Indices) -> Partition:
    best = _with_channels(shares, reads, blocks, block_of)
    for _ in range(_STEPS):
        candidate = _with_channels(shares, reads, blocks, _assign(shares, best.inputs, blocks))
        if candidate.kept <= best.kept * (1 + 1e-9):
            break
        best = candidate
    return best


def _with_channels(shares: Sequence[Floats], reads: Sequence[int], blocks: int, block_of: Indices) -> Partition:
    """The channels that matter most to each block."""
    kept, inputs = 0.0, []
    for share, count in zip(shares, reads, strict=True):
        chosen = []
        for block in range(blocks):
            totals = share[block_of == block].sum(axis=0)
            channels = np.sort(np.argsort(-totals, kind="stable")[:count])
            kept += float(totals[channels].sum())
            chosen.append(channels)
        inputs.append(tuple(chosen))
    return Partition(block_of, tuple(inputs), kept)


def _assign(shares: Sequence[Floats], inputs: Sequence[Sequence[Indices]], blocks: int) -> Indices:
    """The equal blocks that keep most importance for these channels."""
    from scipy.optimize import linear_sum_assignment  # slow to load, and other layouts need none of it

    outputs = len(shares[0])
    gains = np.zeros((outputs, blocks))
    for share, chosen in zip(shares, inputs, strict=True):
        for block, channels in enumerate(chosen):
            gains[:, block] += share[:, channels].sum(axis=1)
    seats = np.repeat(np.arange(blocks), outputs // blocks)
    filters, taken = linear_sum_assignment(gains[:, seats], maximize=True)
    block_of = np.empty(outputs, dtype=np.int64)
    block_of[filters] = seats[taken]
    return block_of
