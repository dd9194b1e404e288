"""A model's torch form, checked against ONNX Runtime before anything is changed in it."""

from __future__ import annotations

import onnx

from models_store.documents.report import Parity
from worker.engine.graph import sample_inputs
from worker.engine.torch_form import TorchForm, build, parity, parity_but_for_rounding
from worker.runner.diagnosis import BrokenPromise

TOLERANCE = 1e-4


def checked_form(model: onnx.ModelProto, seed: int) -> tuple[TorchForm, Parity]:
    """The form, and how far it is from ONNX Runtime on random inputs. Raises BrokenPromise beyond the tolerance."""
    form, inputs = build(model), sample_inputs(model, seed)
    error = parity(model, form, inputs)
    excused = 0.0
    choosing: tuple[str, ...] = ()
    if error > TOLERANCE:
        (error, excused), choosing = parity_but_for_rounding(model, inputs, TOLERANCE)
    if error > TOLERANCE:
        raise BrokenPromise(
            "parity_failed",
            f"The torch form differs from ONNX Runtime by {error:.2e}, relative; the tolerance is {TOLERANCE:.0e}.",
        )
    return form, Parity(max_relative_error=error, tolerance=TOLERANCE, given_choices=choosing, excused=excused)
