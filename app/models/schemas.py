"""What goes in and out of /v1/models."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.names import Name
from app.pages import Listed, Page
from app.uploads.digests import Sha256
from models_store.documents.inspection import LayerInfo, ModelInspection, Rejection, TensorInfo
from models_store.documents.timestamp import Timestamp
from models_store.tables import InputState, Model

TORCHVISION_CLASSES = 1000
TORCHVISION_SHAPE = (3, 224, 224)


class ModelParameters(BaseModel):
    """What the sender says about the file."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["onnx", "onnx_zip", "torchvision"] = Field(
        default="onnx",
        description="`onnx`: the file is the model. `onnx_zip`: the file is a zip of one .onnx file and the files of "
        "weights beside it. `torchvision`: the file holds safetensors weights of the "
        "torchvision architecture named beside it.",
    )
    architecture: str | None = Field(
        default=None,
        max_length=100,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="torchvision only, and needed there: the name of a classification model, such as `resnet18`.",
    )
    num_classes: int | None = Field(
        default=None, ge=1, le=1_000_000, description="torchvision only: outputs of the network; 1000 if left out."
    )
    input_shape: str | None = Field(
        default=None,
        pattern=r"^[1-9]\d{0,4}(,[1-9]\d{0,4}){2}$",
        description="torchvision only: channels,height,width of one sample; `3,224,224` if left out.",
    )
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _fields_suit_the_format(self) -> Self:
        if self.format == "torchvision" and self.architecture is None:
            raise ValueError("format torchvision needs `architecture`, such as resnet18")
        told = [name for name in ("architecture", "num_classes", "input_shape") if getattr(self, name) is not None]
        if self.format != "torchvision" and told:
            raise ValueError(f"{', '.join(told)}: only for format torchvision; an ONNX file says this itself")
        return self

    def details(self) -> "TorchvisionDetails | None":
        """What the inspector must know beyond the file's bytes."""
        if self.architecture is None:
            return None
        shape = tuple(map(int, self.input_shape.split(","))) if self.input_shape else TORCHVISION_SHAPE
        return TorchvisionDetails(
            architecture=self.architecture, num_classes=self.num_classes or TORCHVISION_CLASSES, input_shape=shape
        )


class ModelForm(ModelParameters):
    """The boxes of the upload form beside the file."""

    name: Name | None = Field(default=None, description="The file's name if left out.")


class TorchvisionDetails(BaseModel):
    """Of a model that came as weights."""

    architecture: str
    num_classes: int
    input_shape: tuple[int, ...] = Field(description="Channels, height, width.")


class ModelSummary(BaseModel):
    """What the inspection found; the layers are under `/graph`."""

    ir_version: int
    opsets: dict[str, int]
    producer: str
    nodes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    params: int
    macs: int = Field(description="Multiply-accumulates for one sample.")
    size_bytes: int = Field(description="The canonical ONNX file.")
    warnings: tuple[str, ...]


class ModelView(Listed):
    """A model as its owner sees it."""

    id: str = Field(examples=["mdl_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    name: str
    format: str
    state: InputState = Field(description="`inspecting`, then `ready` for jobs, or `rejected` with the reason.")
    sha256: str = Field(description="Of the uploaded file.")
    size_bytes: int = Field(description="The uploaded file.")
    details: TorchvisionDetails | None = Field(description="As sent with weights; null for ONNX.")
    inspection: ModelSummary | None = Field(description="Once `ready`.")
    rejection: Rejection | None = Field(description="Once `rejected`: why, and what to do.")
    created_at: Timestamp

    @classmethod
    def of(cls, model: Model) -> Self:
        return cls(
            id=model.id,
            name=model.name,
            format=model.format,
            state=model.state,
            sha256=model.sha256,
            size_bytes=model.size_bytes,
            details=TorchvisionDetails.model_validate(model.details) if model.details else None,
            inspection=ModelSummary.model_validate(model.inspection) if model.inspection else None,
            rejection=Rejection.model_validate(model.rejection) if model.rejection else None,
            created_at=model.created_at,
        )


class ModelPage(Page[ModelView]):
    """Models, newest first."""


class ModelGraph(BaseModel):
    """The layers as the pruning engine sees them."""

    model_id: str
    params: int
    macs: int = Field(description="Multiply-accumulates for one sample.")
    layers: tuple[LayerInfo, ...]

    @classmethod
    def of(cls, model_id: str, inspection: ModelInspection) -> Self:
        return cls(model_id=model_id, params=inspection.params, macs=inspection.macs, layers=inspection.layers)
