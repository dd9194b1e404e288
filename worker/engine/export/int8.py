"""INT8 by static quantisation: weights per channel, activations by their ranges on calibration images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from worker.engine.errors import EngineError
from worker.engine.graph.inputs import as_declared, given_inputs
from worker.engine.graph.onnx_graph import int_attribute

_PER_CHANNEL_OPSET = 13
"""DequantizeLinear takes a scale per channel from this opset on."""


def quantise(
    model: onnx.ModelProto, images: Iterable[np.ndarray], folder: Path, *, full_range: bool = False
) -> onnx.ModelProto:
    """The model with QuantizeLinear and DequantizeLinear around its layers (QDQ), inputs and outputs in float32.

    images: calibration batches for the model's one input. BatchNormalization is folded into the layers before it. A
    half-precision model is quantised as float32 model: the quantiser leaves weights alone that stand behind a Cast.
    Weights take 7 bits of the 8, and all of them with `full_range`: an x86 processor without VNNI adds pairs of
    products up in 16 bits, and what does not fit there is cut off. `folder` holds what ONNX Runtime's quantiser puts on
    disk meanwhile. Raises EngineError where it gives up.
    """
    from worker.engine.torch_form.single_precision import in_single_precision  # loads torch

    model = in_single_precision(model)
    (value,) = given_inputs(model)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    source, prepared, target = (folder / f"int8_{step}.onnx" for step in ("source", "prepared", "target"))
    try:
        onnx.save(model, source)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _Images(value, images),
            quant_format=QuantFormat.QDQ,
            per_channel=opset >= _PER_CHANNEL_OPSET,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=not full_range,
            extra_options={"TensorQuantOverrides": _scaled_as_one(onnx.load(prepared).graph)},
        )
        return onnx.load(target)
    except Exception as error:  # the quantiser raises whatever its parts raise
        logging.getLogger(__name__).warning("quantisation failed", exc_info=True)
        newer = f", or export the model with opset {_PER_CHANNEL_OPSET} or newer" if opset < _PER_CHANNEL_OPSET else ""
        raise EngineError(
            "quantisation_failed",
            f"ONNX Runtime's quantiser cannot quantise the pruned model: {error}.",
            f"Leave export.int8 out{newer}.",
        ) from error
    finally:
        for path in (source, prepared, target):
            path.unlink(missing_ok=True)


def _scaled_as_one(graph: onnx.GraphProto) -> dict[str, list[dict[str, object]]]:
    """Kernels of grouped ConvTransposes with a bias, each with one scale, as the quantiser wants it told. Left to
    itself it takes a scale for each output of a group, and has too few of them for the bias of all groups."""
    stored = {tensor.name for tensor in graph.initializer}
    return {
        node.input[1]: [{}]
        for node in graph.node
        if node.op_type == "ConvTranspose" and int_attribute(node, "group", 1) > 1 and stored.issuperset(node.input[1:])
    }


class _Images(CalibrationDataReader):  # type: ignore[misc]  # published without types
    """Calibration batches, one at a time."""

    def __init__(self, value: onnx.ValueInfoProto, images: Iterable[np.ndarray]) -> None:
        self._value = value
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._images, None)
        return None if batch is None else {self._value.name: as_declared(self._value, batch)}
