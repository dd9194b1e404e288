"""Uploaded datasets."""

from typing import Any

from models_store.inputs import InputRepository
from models_store.tables import Dataset, InputState


class DatasetRepository(InputRepository[Dataset]):
    """Formats: `image_folder` and `npz`."""

    _table = Dataset
    _prefix = "dst"

    def mark_ready(self, id: str, inspection: dict[str, Any]) -> bool:
        """Record a `DatasetInspection`; false if no longer inspecting. As `ModelRepository.mark_ready`."""
        return self._settle(id, state=InputState.READY, inspection=inspection)
