"""Uploaded datasets."""

from typing import Any

from models_store.inputs import InputRepository
from models_store.tables import Dataset, InputState


class DatasetRepository(InputRepository[Dataset]):
    """Formats: those of `DatasetFormat`."""

    _table = Dataset
    _prefix = "dst"

    def mark_ready(self, id: str, inspection: dict[str, Any]) -> bool:
        """Record a `DatasetInspection`, and the format that it found; false if no longer inspecting.

        As `ModelRepository.mark_ready`.
        """
        seen = {key: inspection[key] for key in ("format",) if key in inspection}
        return self._settle(id, state=InputState.READY, inspection=inspection, **seen)
