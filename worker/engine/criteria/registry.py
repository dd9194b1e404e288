"""The registry of criteria, and the one entry point `score`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from worker.engine.criteria.evidence import Calibration, Evidence
from worker.engine.criteria.width import Floats, Width
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis
from worker.engine.methods import Options, Registry, options_of

Scores = dict[int, npt.NDArray[np.float64]]
"""group id -> one score per unit; larger is more important."""

Criterion = Callable[[Evidence, Width, Any], Sequence[Floats]]
"""(evidence, width, options) -> rows of one score per unit of the width: one row per coupled layer or place, NaN for a
unit that does not occur there."""

CRITERIA: Registry[Criterion] = Registry("criterion", asked_for_by="pruning.criterion")


class Normalised(Options):
    """How the scores of different layers become comparable."""

    normalisation: Literal["mean", "max", "sum", "norm", "none"] = Field(
        default="mean", description="What each layer's scores are divided by; none compares them as they are."
    )


class ScoreOptions(Normalised):
    """How the scores of coupled layers become one, and how layers become comparable."""

    aggregation: Literal["mean", "sum", "max"] = Field(
        default="mean", description="Over the coupled layers whose channels go together."
    )


def score(
    analysis: Analysis,
    name: str,
    options: Mapping[str, Any] | Options | None = None,
    *,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> Scores:
    """Scores of all units, aggregated over coupled layers and normalised per width as the options say.

    `calibration` holds images, and labels where the criterion needs them. Raises EngineError for an unknown name or
    option, and where the criterion needs data that are not there.
    """
    method = CRITERIA.find(name)
    chosen = options_of(method.read_options(options), Normalised)
    lacking = calibration is None or (method.data == "labels" and calibration.labels is None)
    if method.data != "none" and lacking:
        raise EngineError(
            "needs_data", f"Criterion '{name}' needs {method.data}.", "Give the job a dataset, or choose another one."
        )
    evidence = Evidence(analysis, seed, calibration)
    scores: Scores = {}
    for width in evidence.widths:
        rows = method.function(evidence, width, chosen)
        scores.update(width.by_group(_normalised(_aggregated(rows, len(width), chosen), chosen)))
    return scores


def _aggregated(rows: Sequence[Floats], units: int, options: Normalised) -> Floats:
    """One score per unit, from the rows in which it is no NaN; a criterion without a choice of aggregation has added up
    by itself what is coupled."""
    stacked = np.stack(rows) if len(rows) else np.full((1, units), np.nan)
    known = ~np.isnan(stacked).all(axis=0)
    if not known.any():  # nothing is known about these units: all alike
        return np.ones(units)
    by_name: dict[str, Callable[..., Any]] = {"mean": np.nanmean, "sum": np.nansum, "max": np.nanmax}
    chosen = options.aggregation if isinstance(options, ScoreOptions) else "sum"
    found = by_name[chosen](stacked[:, known], axis=0)
    scores = np.full(units, found.mean())  # units of which nothing is known are like the others
    scores[known] = found
    return scores


def _normalised(values: Floats, options: Normalised) -> Floats:
    if options.normalisation == "none":
        return values
    measure: dict[str, Callable[[Floats], Any]] = {
        "mean": np.mean,
        "max": np.max,
        "sum": np.sum,
        "norm": np.linalg.norm,
    }
    if not values.any():  # a dead layer: what it has may go before anything else
        return values
    divisor = float(measure[options.normalisation](values))
    return values / divisor if divisor > 0 else np.ones_like(values)
