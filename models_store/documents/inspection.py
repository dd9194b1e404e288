"""What the inspector found in an upload."""

from typing import Literal

from pydantic import Field

from models_store.documents.base import Document


class TensorInfo(Document):
    """A graph input or output. A dimension is a number, a symbolic name, or None where nothing is declared."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


class LayerInfo(Document):
    """One layer with weights: how many output channels, in which group they live and die, or why they stay."""

    name: str
    op: str
    channels: int = Field(description="Output channels.")
    prunable_channels: int
    groups: tuple[int, ...] = Field(default=(), description="Groups that share these channels.")
    pinned_reason: str | None = None
    macs: int = Field(description="Multiply-accumulates for one sample.")
    macs_share: float
    params: int


class ModelInspection(Document):
    """A model that is `ready`: its face and its layers, as the engine sees them."""

    version: Literal[1] = 1
    ir_version: int
    opsets: dict[str, int]
    producer: str
    nodes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    params: int = Field(
        description="Numbers in the weights of the file, running means and variances of norms among them."
    )
    macs: int = Field(description="Multiply-accumulates for one sample.")
    size_bytes: int
    layers: tuple[LayerInfo, ...]
    warnings: tuple[str, ...] = ()


DatasetFormat = Literal["image_folder", "cifar_python", "cifar_binary", "npz"]


class DatasetInspection(Document):
    """A dataset that is `ready`. Images without labels have no classes."""

    version: Literal[1] = 1
    format: DatasetFormat
    classes: tuple[str, ...]
    samples: int
    samples_per_class: tuple[int, ...]
    test_samples: int = Field(description="Samples in a test split of the upload's own; 0 where there is none.")
    shapes: tuple[str, ...] = Field(description="Distinct sample shapes as HxWxC, at most 16.")
    bad_files: tuple[str, ...] = Field(default=(), description="Files left out and why, at most 100.")
    bad_file_count: int = 0


class Rejection(Document):
    """Why an upload was refused, and what to do about it."""

    code: str
    message: str
    hint: str
    node: str | None = Field(default=None, description="The offending node or file.")
