"""Who trains a network: one process, or several that each take their part of every batch and make the same step.

The parts are weighted by their images, and what a layer takes of a whole batch (BatchNormalization) is taken of all
parts. So a step is that of the undivided batch, whoever made it.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import fx


class Team(Protocol):
    """What a training asks of the processes it runs in. Methods that `together` implements by talking to the others are
    to be called by all of them, in the same order."""

    processes: int
    rank: int
    """From 0, which alone writes files."""

    def rows(self, size: int) -> slice:
        """Which rows of a batch are this process's."""
        ...

    def weight(self, size: int) -> float:
        """What each of these rows counts: less than 1 where a batch is too small to be divided, and all have it."""
        ...

    def total(self, *values: float) -> tuple[float, ...]:
        """Sums over the processes."""
        ...

    def from_first(self, value: int) -> int:
        """What the first process says."""
        ...

    def joined(self, network: fx.GraphModule) -> fx.GraphModule:
        """The network, on batch statistics of whole batches in place of parts; changed in place."""
        ...

    def stepping(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network to go through where gradients are wanted: they are those of the whole batch's mean, if each
        process's loss is `weight` by `processes` times that of the mean of its part."""
        ...


class Alone:
    """One process."""

    processes, rank = 1, 0

    def rows(self, size: int) -> slice:
        return slice(0, size)

    def weight(self, size: int) -> float:
        return 1.0

    def total(self, *values: float) -> tuple[float, ...]:
        return values

    def from_first(self, value: int) -> int:
        return value

    def joined(self, network: fx.GraphModule) -> fx.GraphModule:
        return network

    def stepping(self, network: torch.nn.Module) -> torch.nn.Module:
        return network


ALONE = Alone()
