"""The model in float16: half the size, and half the memory traffic on hardware that computes in it."""

from __future__ import annotations

import warnings

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from worker.engine.errors import EngineError


def to_half_precision(model: onnx.ModelProto, *, keep_io: bool = True) -> onnx.ModelProto:
    """A copy with float16 weights and arithmetic; with `keep_io` the inputs and outputs stay float32, behind Casts.

    Nodes that have no float16 form stay float32 between Casts. Raises EngineError where the model cannot be converted.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says of each weight beyond float16's range that it was cut off
            converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=keep_io)
    except (ValueError, TypeError, AttributeError, KeyError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(
            "half_precision_failed",
            f"The pruned model cannot be converted to float16: {error}.",
            "Leave export.float16 out, and report the model.",
        ) from error
    return converted
