"""Activations of a model on calibration images, batch by batch, from ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx

from worker.engine.criteria.evidence import Calibration
from worker.engine.errors import EngineError
from worker.engine.graph.analysis import Analysis
from worker.engine.graph.inputs import declared_shape
from worker.engine.graph.runtime import RUNTIME_ERRORS, Session

_BATCH_BYTES = 256 * 2**20
_LARGEST_BATCH = 64


def observed(
    analysis: Analysis, names: Collection[str], calibration: Calibration
) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """For each batch the named activations (B, ...), and the images they belong to by number (B,).

    A model with a fixed batch is given whole batches only. Raises EngineError where it does not run on the images.
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
            raise EngineError(
                "not_runnable",
                f"The model does not run on the dataset's images {fed.shape}: {error}.",
                "Check the model's input size and layout.",
            ) from error
        found = {name: np.asarray(array)[: len(chosen)] for name, array in zip(session.outputs, arrays, strict=True)}
        yield found, chosen


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
