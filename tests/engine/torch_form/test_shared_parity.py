"""The torch form of nine public models computes what ONNX Runtime computes."""

import numpy as np
import onnx
import pytest

from worker.engine.torch_form import build, parity

NAMES = (
    "deeplab_v3_mobilenetv2_nhwc",
    "face_rfb_320",
    "fastestdet_shufflenetv2",
    "mesonet_nhwc",
    "ocr_direction_mobilenetv3",
    "retinaface_mobilenet025",
    "super_resolution",
    "unet_117k",
    "yolox_nano",
)
# YOLOX takes pixels, not normalised values: on noise around zero its exponentials amplify rounding a hundredfold.
PIXEL_RANGE = {"yolox_nano": 255.0}


@pytest.mark.shared
@pytest.mark.parametrize("name", NAMES)
def test_equals_onnx_runtime(shared, name):
    model = onnx.load(shared / "models" / f"{name}.onnx")
    assert parity(model, build(model), random_inputs(model, PIXEL_RANGE.get(name, 1.0))) <= 1e-4


def random_inputs(model, scale):
    stored = {tensor.name for tensor in model.graph.initializer}
    rng = np.random.default_rng(0)
    return {
        value.name: scale * rng.random(concrete_shape(value), dtype=np.float32)
        for value in model.graph.input
        if value.name not in stored
    }


def concrete_shape(value):
    """A batch of two and 64 pixels where a dimension is left open."""
    defaults = (2, 3, 64, 64)
    return [dim.dim_value or defaults[axis] for axis, dim in enumerate(value.type.tensor_type.shape.dim)]
