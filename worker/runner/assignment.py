"""What every process of a training has to know of it: files in the work folder that the first one writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from safetensors.torch import load_file, save_file

from models_store.documents.base import Document
from worker.engine.disk_errors import as_os_errors
from worker.engine.masks.files import load_masks, save_masks
from worker.engine.masks.weights import Masks
from worker.engine.recovery import FinetuneOptions, SelectiveDecay
from worker.engine.recovery.selective_decay import Growth


class _Decay(Document):
    growth: Growth
    first: float
    last: float


class _Page(Document):
    """What is said in words; the rest lies beside it."""

    options: FinetuneOptions
    checkpoint: Path
    taught: bool
    decay: _Decay | None


@dataclass(frozen=True)
class Assignment:
    """A training of `model`; `taught` where the original is its teacher."""

    model: onnx.ModelProto
    options: FinetuneOptions
    checkpoint: Path
    masks: Masks
    decay: SelectiveDecay | None
    taught: bool

    def save(self, folder: Path) -> None:
        """Raises OSError where the disk is full."""
        folder.mkdir(exist_ok=True)
        onnx.save(self.model, folder / "model.onnx")
        save_masks(folder / "masks.npz", self.masks)
        decay = None
        if self.decay is not None:
            with as_os_errors():
                save_file(dict(self.decay.doomed), folder / "doomed.safetensors")
            decay = _Decay(growth=self.decay.growth, first=self.decay.first, last=self.decay.last)
        page = _Page(options=self.options, checkpoint=self.checkpoint, taught=self.taught, decay=decay)
        (folder / "page.json").write_text(page.model_dump_json())

    @classmethod
    def load(cls, folder: Path) -> Assignment:
        page = _Page.model_validate_json((folder / "page.json").read_bytes())
        decay = None
        if (said := page.decay) is not None:
            decay = SelectiveDecay(load_file(folder / "doomed.safetensors"), said.growth, said.first, said.last)
        return cls(
            model=onnx.load(folder / "model.onnx"),
            options=page.options,
            checkpoint=page.checkpoint,
            masks=load_masks(folder / "masks.npz"),
            decay=decay,
            taught=page.taught,
        )
