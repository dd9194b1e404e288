"""The registry of recovery methods: what prepares for the cut, and what wins back what it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from worker.engine.methods import Options, Registry

RECOVERIES: Registry[Callable[..., Any]] = Registry("recovery", asked_for_by="recovery")
"""The functions and classes that carry a method out differ in what they take: a job's stages call them by name."""


class CalibrationOptions(Options):
    """Of what looks at images without their labels."""

    calibration_images: int = Field(
        default=1024, ge=2, le=100_000, description="Training images, at most; large activations leave room for fewer."
    )
