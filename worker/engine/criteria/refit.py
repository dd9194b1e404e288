"""Error at the next layers' outputs that no refit of their other weights makes up for."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.engine.criteria.covariance import Covariances, Observed
from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.readers import Reader
from worker.engine.criteria.registry import CRITERIA, Normalised
from worker.engine.criteria.weights import rows_per_source
from worker.engine.criteria.width import Floats, Width

_STEPS = 32
"""At most this share of the units left, one in 32, goes at a time."""
_POOL = 4
"""They are chosen among this many times as many, the cheapest."""

Indices = npt.NDArray[np.intp]
_Matrix = npt.NDArray[np.floating[Any]]


class RefitOptions(Normalised):
    """What is sampled, and what a unit's score is."""

    normalisation: Literal["mean", "max", "sum", "norm", "none"] = Field(
        default="none", description="Errors are relative to the outputs and compare across layers as they are: none."
    )
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
    are gone and least squares has set the weights of the others.

    Where no layer is known that sums over the width, the share of its filters' squared weights that is gone.
    """
    seen = evidence.once("covariances", lambda: Covariances(evidence, options.calibration_images, options.locations))
    surgeons = [_surgeon(each, width, options.ridge) for each in seen.of(width)]
    return [_order_of_removal(surgeons, len(width))] if surgeons else _share_of_weights(width)


def _share_of_weights(width: Width) -> list[Floats]:
    rows = rows_per_source(width, lambda weights: np.square(weights).sum(axis=1))
    if not rows:
        return []
    energy = np.sum(rows, axis=0)
    order = np.argsort(energy, kind="stable")
    gone = np.empty(len(energy))
    gone[order] = np.cumsum(energy[order]) / max(float(energy.sum()), 1e-30)
    return [gone]


def _order_of_removal(surgeons: list[_Surgeon], units: int) -> Floats:
    """Score = the largest total error up to a unit's removal, the cheapest units going first."""
    scores, left, error = np.zeros(units), np.arange(units), 0.0
    while len(left):
        costs = np.sum([surgeon.costs(units) for surgeon in surgeons], axis=0)
        count = max(1, len(left) // _STEPS)
        pool = left[np.argsort(costs[left], kind="stable")][: _POOL * count]
        going = []
        for unit, cost in islice(_cheapest_first(surgeons, costs, pool), count):
            error = np.nextafter(error + max(cost, 0.0), np.inf)
            scores[unit] = error
            going.append(unit)
        left = np.setdiff1d(left, going)
        for surgeon in surgeons:
            surgeon.remove(np.array(going))
    return scores


def _cheapest_first(surgeons: list[_Surgeon], costs: Floats, pool: Indices) -> Iterator[tuple[int, float]]:
    """The pool's units, and the error that each adds to that of the units before it: of two that stand in for each
    other only the first is cheap."""
    among: list[_Loss] = []
    while len(pool):
        unit = pool[np.argmin(costs[pool])]
        yield int(unit), float(costs[unit])
        among = among or [surgeon.among(pool) for surgeon in surgeons]
        for each in among:
            each.remove(np.array([unit]))
        costs = np.sum([each.costs(len(costs)) for each in among], axis=0)
        pool = pool[pool != unit]


class _Loss(Protocol):
    """What one reader loses as units are taken away from it."""

    def costs(self, units: int) -> Floats:
        """For each unit the error that its removal adds, relative to the variance of the reader's outputs; 0 for one
        that is gone, or that it does not read."""
        ...

    def remove(self, units: Indices) -> None: ...


class _Surgeon(_Loss, Protocol):
    def among(self, units: Indices) -> _Loss:
        """The same for these units alone, some of which can be taken away on trial."""
        ...


def _surgeon(observed: Observed, width: Width, ridge: float) -> _Surgeon:
    reader, covariance = observed.reader, observed.covariance
    unit_of = width.positions(reader.labels)
    if not observed.varies:
        return _Indifferent()
    if covariance.ndim == 2:
        return _Refitting(reader, unit_of, covariance, ridge)
    return _Fixed(reader, unit_of, covariance)


class _Indifferent:
    """A layer whose inputs are the same for all images: its bias makes up for any of them."""

    def costs(self, units: int) -> Floats:
        return np.zeros(units)

    def remove(self, units: Indices) -> None:
        """Nothing changes."""

    def among(self, units: Indices) -> _Loss:
        return self


class _Refitting:
    """Least squares sets the weights of what is left."""

    def __init__(self, reader: Reader, unit_of: npt.NDArray[np.int64], covariance: Floats, ridge: float) -> None:
        outputs, channels, taps = reader.weight.shape
        weight = reader.weight.reshape(outputs, channels * taps).astype(np.float64)
        damped = covariance.copy()
        damped[np.diag_indices_from(damped)] += ridge * max(float(np.diagonal(covariance).mean()), 1e-30)
        self._inverse = np.linalg.inv(damped)
        self._weight = weight
        self._energy = max(float(((weight @ covariance) * weight).sum()), 1e-30)
        self._unit_of = np.repeat(unit_of, taps)

    def costs(self, units: int) -> Floats:
        """tr(W_u (H^-1_uu)^-1 W_u^T)."""
        found = np.zeros(units)
        for which, rows in _alike(self._unit_of):
            weight = self._weight[:, rows].transpose(1, 2, 0)  # (units, rows of one, outputs)
            inverse = self._inverse[rows[:, :, None], rows[:, None, :]]
            found[which] = (np.linalg.solve(inverse, weight) * weight).sum(axis=(1, 2))
        return found / self._energy

    def remove(self, units: Indices) -> None:
        rows = np.flatnonzero(np.isin(self._unit_of, units))
        if not len(rows):
            return
        across = np.linalg.solve(self._inverse[np.ix_(rows, rows)], self._inverse[rows])
        self._weight = self._weight - self._weight[:, rows] @ across
        self._inverse = self._inverse - self._inverse[:, rows] @ across
        stays = np.setdiff1d(np.arange(len(self._unit_of)), rows)
        self._weight, self._unit_of = self._weight[:, stays], self._unit_of[stays]
        self._inverse = self._inverse[np.ix_(stays, stays)]

    def among(self, units: Indices) -> _Loss:
        rows = np.flatnonzero(np.isin(self._unit_of, units))
        weight = self._weight[:, rows]
        return _Pool(self._unit_of[rows], self._inverse[np.ix_(rows, rows)], weight.T @ weight / self._energy)


class _Pool:
    """Some units of a `_Refitting`: what it computes for them needs its inverse and its weights' products at their rows
    and no others, whichever of them go."""

    def __init__(self, unit_of: npt.NDArray[np.int64], inverse: _Matrix, products: _Matrix) -> None:
        self._unit_of, self._inverse, self._products = unit_of, inverse, products

    def costs(self, units: int) -> Floats:
        """tr((H^-1_uu)^-1 W_u^T W_u)."""
        found = np.zeros(units)
        for which, rows in _alike(self._unit_of):
            block = rows[:, :, None], rows[:, None, :]
            found[which] = np.linalg.solve(self._inverse[block], self._products[block]).trace(axis1=1, axis2=2)
        return found

    def remove(self, units: Indices) -> None:
        rows = np.flatnonzero(np.isin(self._unit_of, units))
        across = np.linalg.solve(self._inverse[np.ix_(rows, rows)], self._inverse[rows])
        # (W - W_u across)^T (W - W_u across)
        half = across.T @ (self._products[rows] - self._products[np.ix_(rows, rows)] @ across / 2)
        self._products -= half + half.T
        self._inverse -= self._inverse[:, rows] @ across
        self._unit_of = np.where(np.isin(self._unit_of, units), -1, self._unit_of)


class _Fixed:
    """A layer that sums over too much to be refitted: what a channel adds to its outputs is lost with it."""

    def __init__(self, reader: Reader, unit_of: npt.NDArray[np.int64], covariances: Floats) -> None:
        by_channel = reader.weight.transpose(1, 2, 0)  # (C, taps, outputs)
        each = ((by_channel @ by_channel.transpose(0, 2, 1)) * covariances).sum(axis=(1, 2))
        self._each, self._unit_of = each / max(float(each.sum()), 1e-30), unit_of

    def costs(self, units: int) -> Floats:
        read = self._unit_of >= 0
        return np.bincount(self._unit_of[read], self._each[read], minlength=units).astype(np.float64)

    def remove(self, units: Indices) -> None:
        self._each = np.where(np.isin(self._unit_of, units), 0.0, self._each)

    def among(self, units: Indices) -> _Loss:
        return copy(self)


def _alike(unit_of: npt.NDArray[np.int64]) -> Iterator[tuple[Indices, Indices]]:
    """Units that have equally many rows, and their rows, (units, rows of one)."""
    order = np.argsort(unit_of, kind="stable")
    present, starts, counts = np.unique(unit_of[order], return_index=True, return_counts=True)
    for count in np.unique(counts[present >= 0]):
        chosen = (counts == count) & (present >= 0)
        yield present[chosen], order[starts[chosen][:, None] + np.arange(count)]
