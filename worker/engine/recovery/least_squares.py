"""Ridge regression from accumulated normal equations, with the ridge chosen on samples that were held out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Candidates, relative to the mean square of the inputs."""


class NormalEquations:
    """The sums that a regression of targets t on inputs x needs; memory does not grow with the rows.

    Several regressions stand side by side (the groups of a convolution), each of `inputs` values and a constant one.
    What is regressed is what the weights `prior`, (groups, inputs + 1, outputs), leave unexplained.
    """

    def __init__(self, prior: torch.Tensor) -> None:
        groups, inputs, outputs = prior.shape
        self.prior = prior
        self.rows = 0
        self.gram = torch.zeros(groups, inputs, inputs, dtype=torch.float64)
        self.cross = torch.zeros(groups, inputs, outputs, dtype=torch.float64)
        self.squares = torch.zeros(groups, outputs, dtype=torch.float64)
        self._sum, self._sum_of_squares = torch.zeros_like(self.squares), torch.zeros_like(self.squares)

    def add(self, x: torch.Tensor, t: torch.Tensor) -> None:
        """x: (groups, rows, inputs), t: (groups, rows, outputs), float32."""
        x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)
        unexplained = t - x @ self.prior.to(x.dtype)
        self.rows += x.shape[1]
        self.gram += x.mT @ x
        self.cross += x.mT @ unexplained
        self.squares += unexplained.square().sum(1)
        self._sum += t.sum(1)
        self._sum_of_squares += t.square().sum(1)

    def __add__(self, other: NormalEquations) -> NormalEquations:
        total = NormalEquations(self.prior)
        total.rows = self.rows + other.rows
        total.gram, total.cross = self.gram + other.gram, self.cross + other.cross
        total.squares = self.squares + other.squares
        return total

    def error(self, change: torch.Tensor) -> float:
        """The sum of squared differences with the weights prior + change."""
        explained = 2 * (change * self.cross).sum() - (change * (self.gram @ change)).sum()
        return max(float(self.squares.sum() - explained), 0.0)

    def spread(self) -> float:
        """The sum of squared distances of the targets from their means."""
        return max(float((self._sum_of_squares - self._sum.square() / max(self.rows, 1)).sum()), 1e-30)

    def solve(self, ridge: float, *, constant: bool) -> torch.Tensor:
        """The change that minimises error + ridge * scale * |change|^2, where scale is the inputs' mean square; the
        constant is free, or stays. (groups, inputs + 1, outputs)."""
        size = self.gram.shape[1] if constant else self.gram.shape[1] - 1
        diagonal = self.gram.diagonal(dim1=1, dim2=2)
        scale = diagonal[:, :-1].mean(1, keepdim=True).clamp_min(1e-12)
        penalty = (ridge * scale).expand(-1, self.gram.shape[1]).clone()
        penalty[:, -1:] = 1e-9 * scale
        change = torch.zeros_like(self.cross)
        left = self.gram[:, :size, :size] + torch.diag_embed(penalty[:, :size])
        change[:, :size] = torch.linalg.solve(left, self.cross[:, :size])
        return change


@dataclass(frozen=True)
class Fit:
    """Weights (groups, inputs + 1, outputs), the last row being the constant, and relative errors on held-out rows."""

    solution: torch.Tensor
    ridge: float
    error_before: float
    error_after: float


def fit(train: NormalEquations, held_out: NormalEquations, *, constant: bool) -> Fit:
    """Choose the ridge by the held-out error, relative to the targets' variance, and solve on all rows with it."""
    spread = held_out.spread()
    best, ridge = min((held_out.error(train.solve(ridge, constant=constant)) / spread, ridge) for ridge in RIDGES)
    solution = train.prior + (train + held_out).solve(ridge, constant=constant)
    return Fit(solution, ridge, float(held_out.squares.sum()) / spread, best)
