"""Error at the next layers' outputs that no refit of their other weights makes up for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.observation import observed
from worker.engine.criteria.readers import Reader, readers_of, seen_by
from worker.engine.criteria.registry import CRITERIA, Normalised
from worker.engine.criteria.width import Floats, Width

_MAX_INPUTS = 6000
"""Layers that sum over more are not looked at: their covariances would take gigabytes."""
_STEPS = 32
"""At most this share of the units left, one in 32, goes at a time."""


class RefitOptions(Normalised):
    """What is sampled, and what a unit's score is."""

    calibration_images: int = Field(default=256, ge=1, le=65_536, description="Training images that are looked at.")
    locations: int = Field(default=32, ge=1, le=1000, description="Output positions per image, drawn by the seed.")
    ridge: float = Field(default=1e-3, gt=0, le=10, description="Relative to the inputs' mean variance.")


@CRITERIA.register(
    "refit",
    title="Error after a refit",
    summary="Channels go whose loss the next layers can make up for with the channels that are left; "
    "made for jobs with recovery.reconstruction.",
    paper="Frantar & Alistarh, Optimal Brain Compression, NeurIPS 2022, arXiv 2208.11580; "
    "Kurtic et al., ZipLM, NeurIPS 2023, arXiv 2302.04089, eq. 2-4",
    cost="a forward pass, and an inverse of the next layers' input covariances, updated channel by channel",
    uses=("weights", "activations"),
    data="images",
    exactness="adapted",
    options=RefitOptions,
)
def refit(evidence: Evidence, width: Width, options: RefitOptions) -> list[Floats]:
    """The squared error at the next layers' outputs, relative to their variance, once a unit and those less important
    are gone and least squares has set the weights of the others."""
    seen = evidence.once("covariances", lambda: _covariances(evidence, options))
    surgeons = []
    for reader in readers_of(width):
        if reader.node in seen:
            surgeons.append(_Surgeon(reader, width.positions(reader.labels), seen[reader.node], options.ridge))
    return [_order_of_removal(surgeons, len(width))] if surgeons else []


def _order_of_removal(surgeons: list[_Surgeon], units: int) -> Floats:
    """Score = the largest total error up to a unit's removal, the cheapest units going first."""
    scores, left, error = np.zeros(units), np.ones(units, dtype=bool), 0.0
    while left.any():
        costs = np.where(left, sum(surgeon.costs(left) for surgeon in surgeons), np.inf)
        going = np.argsort(costs, kind="stable")[: max(1, int(left.sum()) // _STEPS)]
        for unit in going:
            error = np.nextafter(error + max(float(costs[unit]), 0.0), np.inf)
            scores[unit] = error
        left[going] = False
        for surgeon in surgeons:
            surgeon.remove(going)
    return scores


class _Surgeon:
    """One reader's inverse covariance and weights, as units are taken away."""

    def __init__(self, reader: Reader, unit_of: npt.NDArray[np.int64], covariance: Floats, ridge: float) -> None:
        outputs, channels, taps = reader.weight.shape
        weight = reader.weight.reshape(outputs, channels * taps)
        damped = covariance + ridge * max(float(np.diagonal(covariance).mean()), 1e-30) * np.eye(len(covariance))
        self._inverse = np.linalg.inv(damped)
        self._weight = weight
        self._energy = max(float(np.einsum("oi,ij,oj->", weight, covariance, weight, optimize=True)), 1e-30)
        self._unit_of = np.repeat(unit_of, taps)

    def costs(self, left: npt.NDArray[np.bool_]) -> Floats:
        """For each unit that is left, the error that its removal adds: tr(W_u (H^-1_uu)^-1 W_u^T)."""
        found = np.zeros(len(left))
        for unit in np.flatnonzero(left):
            rows = np.flatnonzero(self._unit_of == unit)
            if len(rows):
                weight = self._weight[:, rows]
                found[unit] = np.sum(np.linalg.solve(self._inverse[np.ix_(rows, rows)], weight.T) * weight.T)
        return found / self._energy

    def remove(self, units: npt.NDArray[np.int64]) -> None:
        rows = np.flatnonzero(np.isin(self._unit_of, units))
        if not len(rows):
            return
        across = np.linalg.solve(self._inverse[np.ix_(rows, rows)], self._inverse[rows])
        self._weight = self._weight - self._weight[:, rows] @ across
        self._inverse = self._inverse - self._inverse[:, rows] @ across
        stays = np.setdiff1d(np.arange(len(self._unit_of)), rows)
        self._weight, self._unit_of = self._weight[:, stays], self._unit_of[stays]
        self._inverse = self._inverse[np.ix_(stays, stays)]


@dataclass
class _Moments:
    """Sums over sampled rows of x and x xT."""

    rows: int
    total: Floats
    squares: Floats

    def covariance(self) -> Floats:
        mean = self.total / self.rows
        return self.squares / self.rows - np.outer(mean, mean)


def _covariances(evidence: Evidence, options: RefitOptions) -> dict[int, Floats]:
    """Node -> covariance of what it multiplies with its weights, (channels * taps, the same)."""
    analysis = evidence.analysis
    readers = {reader.node: reader for width in evidence.widths for reader in readers_of(width)}
    readers = {n: reader for n, reader in readers.items() if reader.weight[0].size <= _MAX_INPUTS}
    found: dict[int, _Moments] = {}
    if not readers:
        return {}
    tensors = [reader.tensor for reader in readers.values()]
    for arrays, numbers in observed(analysis, tensors, evidence.images(options.calibration_images)):
        for node, reader in readers.items():
            rng = np.random.default_rng([evidence.seed, node, int(numbers[0])])
            patches = seen_by(analysis.graph.nodes[node], arrays[reader.tensor], reader, options.locations, rng)
            rows = patches.reshape(len(patches), -1).astype(np.float32)
            size = rows.shape[1]
            moments = found.setdefault(node, _Moments(0, np.zeros(size), np.zeros((size, size))))
            moments.rows += len(rows)
            moments.total += rows.sum(axis=0, dtype=np.float64)
            moments.squares += rows.T @ rows
    return {node: moments.covariance() for node, moments in found.items()}
