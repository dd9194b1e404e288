"""What goes in and out of /v1/datasets."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from app.names import Name
from app.pages import Listed, Page
from app.uploads.digests import Sha256
from models_store.documents.inspection import DatasetFormat, DatasetInspection, Rejection
from models_store.documents.timestamp import Timestamp
from models_store.tables import Dataset, InputState


class DatasetParameters(BaseModel):
    """What the sender says about the file."""

    model_config = ConfigDict(extra="forbid")

    format: DatasetFormat | None = Field(
        default=None,
        description="`image_folder`: a zip, tar, tar.gz or tar.xz archive with one folder of images per class. "
        "`cifar_python`, `cifar_binary`: such an archive of CIFAR-10 or CIFAR-100 batches as they are published. "
        "`npz`: numpy.savez of `x` (images) and `y` (labels). Seen from the file if left out.",
    )
    sha256: Sha256 | None = None


class DatasetForm(DatasetParameters):
    """The boxes of the upload form beside the file."""

    name: Name | None = Field(default=None, description="The file's name if left out.")


class DatasetView(Listed):
    """A dataset as its owner sees it."""

    id: str = Field(examples=["dst_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    name: str
    format: str = Field(description="Of an archive whose format was not named: `image_folder` until it is `ready`.")
    state: InputState = Field(description="`inspecting`, then `ready` for jobs, or `rejected` with the reason.")
    sha256: str = Field(description="Of the uploaded file.")
    size_bytes: int = Field(description="The uploaded file.")
    inspection: DatasetInspection | None = Field(description="Once `ready`: classes, counts, sizes, bad files.")
    rejection: Rejection | None = Field(description="Once `rejected`: why, and what to do.")
    created_at: Timestamp

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        return cls(
            id=dataset.id,
            name=dataset.name,
            format=dataset.format,
            state=dataset.state,
            sha256=dataset.sha256,
            size_bytes=dataset.size_bytes,
            inspection=DatasetInspection.model_validate(dataset.inspection) if dataset.inspection else None,
            rejection=Rejection.model_validate(dataset.rejection) if dataset.rejection else None,
            created_at=dataset.created_at,
        )


class DatasetPage(Page[DatasetView]):
    """Datasets, newest first."""
