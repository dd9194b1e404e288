"""Options of criteria that look at images."""

from __future__ import annotations

from pydantic import Field

from worker.engine.criteria.registry import Normalised, ScoreOptions

IMAGES = Field(default=256, ge=1, le=65_536, description="Training images that are looked at.")


class CalibratedOptions(ScoreOptions):
    """Scores of several places are aggregated."""

    calibration_images: int = IMAGES


class CalibratedSum(Normalised):
    """Coupled places add up by the criterion's own formula."""

    calibration_images: int = IMAGES
