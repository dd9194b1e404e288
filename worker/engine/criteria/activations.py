"""Statistics of feature maps: summed over calibration images in one pass, for all widths at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from worker.engine.criteria.evidence import Evidence
from worker.engine.criteria.observation import observed
from worker.engine.criteria.places import Place, every_place, feature_maps
from worker.engine.criteria.width import Floats, Width
from worker.engine.errors import EngineError
from worker.engine.graph.labels import Labels

Measure: TypeAlias = Callable[[np.ndarray], Floats]
"""Feature maps (channels, rows, ...) of a batch -> sums over its rows, (moments, channels). Rows are images where the
batch is the first axis."""

Finish: TypeAlias = Callable[[Floats, int], Floats]
"""Sums (moments, channels) and the number of rows -> (channels,)."""


def rows_per_place(evidence: Evidence, width: Width, images: int, measure: Measure, finish: Finish) -> list[Floats]:
    """One row per place at which the width's feature maps are read; a unit of several channels gets their mean, and one
    that is not read there NaN. Raises EngineError where feature maps are no numbers."""
    sums = evidence.once("feature maps", lambda: _measure(evidence, images, measure))
    rows = []
    for place in feature_maps(width):
        total, count = sums[place.tensor]
        labels = _channels(evidence, place)
        channels = width.per_unit(labels, np.ones(len(labels)))
        sums_of_units = width.per_unit(labels, finish(total, count))
        rows.append(np.where(channels > 0, sums_of_units / np.maximum(channels, 1.0), np.nan))
    return rows


def _measure(evidence: Evidence, images: int, measure: Measure) -> dict[str, tuple[Floats, int]]:
    places = every_place(evidence.widths)
    if not places:
        return {}
    sums: dict[str, Floats] = {}
    rows = dict.fromkeys(places, 0)
    calibration = evidence.images(images)
    for arrays, _ in observed(evidence.analysis, list(places), calibration):
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise EngineError(
                    "not_finite",
                    f"Feature map '{name}' holds NaN or infinity on the job's images, which have no rank or variance.",
                    "Check data.mean and data.std, or choose a criterion that needs no images, such as l2.",
                )
            place = places[name]
            maps = _by_channel(np.moveaxis(array, place.axis, 0), len(_channels(evidence, place)))
            found = measure(maps)
            rows[name] += maps.shape[1]
            sums[name] = sums[name] + found if name in sums else found
    return {name: (total, rows[name]) for name, total in sums.items()}


def _channels(evidence: Evidence, place: Place) -> Labels:
    """The channels of an image, also where the axis holds images x channels."""
    one = evidence.analysis.labels_of_one_sample(place.tensor, place.axis)
    return place.labels if one is None else one


def _by_channel(array: np.ndarray, channels: int) -> np.ndarray:
    """(channels, ...) as it is; (images x channels, ...) -> (channels, images, ...)."""
    if len(array) == channels:
        return array
    maps = array.reshape(-1, channels, *(size for size in array.shape[1:] if size > 1))
    return maps.swapaxes(0, 1)
