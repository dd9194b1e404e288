"""What a model's image input looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx

from worker.engine.errors import EngineError
from worker.engine.graph.inputs import given_inputs

_IMAGE_CHANNELS = (3, 1, 4)


@dataclass(frozen=True)
class InputSpec:
    """Layout and size of an image input; None where the model takes any."""

    layout: Literal["NCHW", "NHWC"]
    channels: int | None
    height: int | None
    width: int | None

    @staticmethod
    def of(model: onnx.ModelProto) -> InputSpec:
        """The spec of a model with one four-dimensional input. Channels are where 3, 1 or 4 stands; NCHW in doubt."""
        inputs = given_inputs(model)
        if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
            raise EngineError(
                "not_an_image_model",
                f"The model has {len(inputs)} inputs, or its input is not four-dimensional.",
                "Datasets of images suit models with one input of batch, channels, height and width.",
            )
        dims = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim]
        if dims[1] not in _IMAGE_CHANNELS and dims[3] in _IMAGE_CHANNELS:
            return InputSpec("NHWC", dims[3], dims[1], dims[2])
        return InputSpec("NCHW", dims[1], dims[2], dims[3])
