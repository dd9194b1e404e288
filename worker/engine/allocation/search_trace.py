"""What a search for an allocation looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluated:
    """One candidate, in the order of the search: within the budget, and what it is worth right after the cut."""

    widths: tuple[int, ...]
    cost: float
    """Of the budget's first line, in its unit."""
    top1: float
    loss: float


@dataclass(frozen=True)
class SearchTrace:
    """All candidates that were evaluated; the best has the largest top1, then the smallest loss."""

    evaluated: tuple[Evaluated, ...]
    images: int
    seconds: float

    @property
    def best(self) -> int:
        return max(range(len(self.evaluated)), key=lambda i: (self.evaluated[i].top1, -self.evaluated[i].loss, -i))
