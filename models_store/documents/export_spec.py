"""What a job hands out beside pruned.onnx, and what the report says about it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from models_store.documents.base import Document
from models_store.documents.recorded import asked_for

_OPTIONS = {"float16_io": "float16", "int8_calibration_images": "int8", "int8_full_range": "int8"}


class Export(Document):
    """Further files of the pruned model."""

    float16: bool = Field(default=False, description="pruned.fp16.onnx: weights and arithmetic in float16.")
    float16_io: bool = Field(default=False, description="Let its inputs and outputs be float16, too.")
    int8: bool = Field(
        default=False,
        description="pruned.int8.onnx: static quantisation by ONNX Runtime; needs a dataset to calibrate on.",
    )
    int8_calibration_images: int = Field(default=256, ge=1, le=10_000)
    int8_full_range: bool = Field(
        default=False,
        description="Weights in all 8 bits, for processors with VNNI, ARM and accelerators alone. Other x86 processors "
        "overflow with them; the 7 bits that weights have otherwise are right everywhere.",
    )
    safetensors: bool = Field(
        default=False,
        description="pruned.safetensors: the weights by their state-dict names, of models uploaded as torchvision "
        "weights; examples/load_slim.py makes the PyTorch network of them.",
    )

    @model_validator(mode="after")
    def _each_option_has_its_file(self) -> Self:
        for option, file in _OPTIONS.items():
            if asked_for(self, option) and not getattr(self, file):
                raise ValueError(f"export.{option} is about export.{file}: set that to true, or leave {option} out")
        return self


FileKind = Literal["float16", "int8", "safetensors"]


class ExportedFile(Document):
    """A further file, checked against pruned.onnx by running both in ONNX Runtime."""

    name: str
    kind: FileKind
    max_relative_error: float | None = Field(
        description="Of its outputs on validation images, 4 for float16, up to 64 for INT8, or on a random input; None "
        "for safetensors, which hold no graph."
    )
    top1: float | None = Field(description="On the test split, by ONNX Runtime; None without data.")


class MissingFile(Document):
    """A further file that the job was asked for and could not make. The rest of its work stands."""

    name: str
    kind: FileKind
    reason: str
