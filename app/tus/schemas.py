"""What /v1/uploads says about an upload, beside the headers of the protocol."""

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, Field

from app.errors import Problem
from app.tus import metadata
from app.tus.metadata import Kind
from models_store.documents.timestamp import Timestamp
from models_store.tables import Upload


class UploadState(StrEnum):
    """`receiving` until all bytes are there and were looked at."""

    RECEIVING = "receiving"
    DONE = "done"
    REFUSED = "refused"


class UploadView(BaseModel):
    """An upload in pieces, as its sender sees it."""

    id: str = Field(examples=["upl_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    kind: Kind = Field(description="What it becomes.")
    name: str
    state: UploadState
    offset: int = Field(description="Bytes that have arrived and are kept.")
    size_bytes: int = Field(description="Bytes of the whole file.")
    model_id: str | None = Field(description="Once `done`, of a model.")
    dataset_id: str | None = Field(description="Once `done`, of a dataset.")
    refusal: Problem | None = Field(description="Once `refused`: why the whole file was not taken, and what to do.")
    created_at: Timestamp
    expires_at: Timestamp = Field(description="Until then it may be continued; every piece renews it.")

    @classmethod
    def of(cls, upload: Upload) -> Self:
        purpose = metadata.read(upload.purpose)
        refused = UploadState.REFUSED if upload.refusal else UploadState.RECEIVING
        return cls(
            id=upload.id,
            kind=purpose.kind,
            name=purpose.name,
            state=UploadState.DONE if upload.result_id else refused,
            offset=upload.offset,
            size_bytes=upload.size_bytes,
            model_id=upload.result_id if purpose.kind == "model" else None,
            dataset_id=upload.result_id if purpose.kind == "dataset" else None,
            refusal=Problem.model_validate(upload.refusal) if upload.refusal else None,
            created_at=upload.created_at,
            expires_at=upload.expires_at,
        )
