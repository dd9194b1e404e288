"""Activations of a model on calibration images, batch by batch, from ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx

from worker.engine.criteria.evidence import Calibration
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.inputs import declared_shape, misfit_hint
from worker.engine.graph.runtime import RUNTIME_ERRORS, Session

_BATCH_BYTES = 256 * 2**20
_LARGEST_BATCH = 64


def observed(
    analysis: Analysis, names: Collection[str], calibration: Calibration
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """For each batch the named activations, (B, ...) in most models, and the images they belong to by number (B,).

    A model with a fixed batch is given whole batches only: the last is filled up with its images again. These are cut
    off where the batch is the first axis; where it is another, or has heads in it, they count twice. Raises EngineError
    where the model does not run on the images.
    """
    value = analysis.graph.inputs[0]
    session = Session(_exposing(analysis.graph.model, names), optimised=True)
    declared = declared_shape(value) or [None]
    fixed = declared[0] if isinstance(declared[0], int) else None
    size = fixed or _batch_size(analysis, names)
    count = len(calibration.images)
    for start in range(0, count, size):
        chosen = np.arange(start, min(start + size, count))
        fed = calibration.images[np.resize(chosen, fixed or len(chosen))]
        try:
            arrays = session.run({value.name: fed})
        except RUNTIME_ERRORS as error:
            element = onnx.helper.tensor_dtype_to_string(value.type.tensor_type.elem_type).rpartition(".")[2].lower()
            raise EngineError(
                "not_runnable",
                f"The model does not run on the dataset's images {fed.shape}: {error}.",
                misfit_hint(element),
            ) from error
        found = {name: np.asarray(array) for name, array in zip(session.outputs, arrays, strict=True)}
        filled = len(fed) > len(chosen)
        cut = {name for name, array in found.items() if filled and _has_images_first(analysis, name, array, len(fed))}
        yield {name: array[: len(chosen)] if name in cut else array for name, array in found.items()}, chosen


def _has_images_first(analysis: Analysis, name: str, array: np.ndarray, batch: int) -> bool:
    """Whether the first axis is as long as the batch and none of channels."""
    labels = analysis.propagation.tensors.get(name)
    return array.ndim > 0 and len(array) == batch and not (labels and labels[0] is not None)


def _exposing(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(names)))
    return exposed


def _batch_size(analysis: Analysis, names: Collection[str]) -> int:
    """As many images as the exposed activations leave room for."""
    facts = analysis.facts
    per_image = sum(4 * int(np.prod(facts.shapes.get(name, (1,)))) for name in set(names)) / max(facts.batch, 1)
    return int(np.clip(_BATCH_BYTES // max(per_image, 1), 1, _LARGEST_BATCH))
