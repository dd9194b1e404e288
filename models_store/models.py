"""Uploaded models."""

from typing import Any

from models_store.inputs import InputRepository
from models_store.tables import InputState, Model


class ModelRepository(InputRepository[Model]):
    """Formats: `onnx`, `onnx_zip` (a model and its files of weights), and `torchvision` with `details` = architecture,
    num_classes, input_shape."""

    _table = Model
    _prefix = "mdl"

    def mark_ready(self, id: str, inspection: dict[str, Any], onnx_key: str) -> bool:
        """Record a `ModelInspection` and the blob of the canonical ONNX file; false if no longer inspecting.

        A worker calls `JobRepository.hold` first and `succeed` after, in one transaction: fenced, all or nothing.
        """
        return self._settle(id, state=InputState.READY, inspection=inspection, onnx_key=onnx_key)
