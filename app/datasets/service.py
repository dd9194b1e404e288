"""What happens to datasets: received, listed, deleted."""

import re
from collections.abc import Sequence
from http import HTTPStatus

from sqlalchemy.orm import Session

from app.datasets.schemas import DatasetParameters
from app.errors import ApiError
from app.uploads import digests, door
from app.uploads.incoming import ReceivedFile
from models_store.blobs import Blob, BlobStore
from models_store.datasets import DatasetRepository
from models_store.documents.inspection import DatasetFormat, Rejection
from models_store.documents.job_spec import JobKind
from models_store.errors import InUse
from models_store.jobs import JobRepository
from models_store.spans import Span
from models_store.tables import Dataset, InputState

DATASET_ID = re.compile(r"dst_[0-9a-f]{32}")
INSPECTION_DEADLINE_S = 3600


class DatasetNotFound(ApiError):
    """There is no such dataset."""

    status = HTTPStatus.NOT_FOUND
    code = "dataset_not_found"
    hint = "GET /v1/datasets lists the datasets with their ids."


class DatasetNotReady(ApiError):
    """The dataset is still being inspected."""

    status = HTTPStatus.CONFLICT
    code = "dataset_not_ready"
    hint = "Poll GET /v1/datasets/{id} until `state` is `ready`, then try again."


class DatasetRejected(ApiError):
    """The dataset was refused by its inspection."""

    status = HTTPStatus.CONFLICT
    code = "dataset_rejected"
    hint = "GET /v1/datasets/{id} says why; upload a corrected one."


class DatasetInUse(ApiError):
    """A job that has not ended needs the dataset."""

    status = HTTPStatus.CONFLICT
    code = "dataset_in_use"
    hint = "Cancel the job with POST /v1/jobs/{id}/cancel, or wait for its end."


def keep(file: ReceivedFile, parameters: DatasetParameters, blobs: BlobStore) -> tuple[DatasetFormat, Blob]:
    """Check an upload at the door and put its bytes away; slow for large files, so before any transaction."""
    digests.verify(file, parameters.sha256)
    format = door.detect_dataset(file.path, parameters.format)
    return format, blobs.adopt(file.path, sha256=file.sha256)


def register(session: Session, name: str, format: DatasetFormat, blob: Blob, *, named: bool) -> Dataset:
    """The row of a new dataset, and the job that inspects it, which corrects a format that was not `named`."""
    dataset = DatasetRepository(session).add(
        name=name,
        format=format,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
        blob_key=blob.key,
        details={"format_named": named},
    )
    JobRepository(session).create(JobKind.INSPECT, {}, dataset_id=dataset.id, deadline_s=INSPECTION_DEADLINE_S)
    return dataset


def page(
    session: Session,
    after: str | None,
    limit: int,
    *,
    state: InputState | None,
    format: str | None,
    name: str | None,
    span: Span,
) -> Sequence[Dataset]:
    return DatasetRepository(session).list(after, limit, state, format, name, span)


def get(session: Session, dataset_id: str) -> Dataset:
    """Raises DatasetNotFound."""
    dataset = DatasetRepository(session).get(dataset_id) if DATASET_ID.fullmatch(dataset_id) else None
    if dataset is None:
        raise DatasetNotFound(f"There is no dataset {dataset_id}.")
    return dataset


def get_ready(session: Session, dataset_id: str) -> Dataset:
    """A dataset that jobs may use. Raises DatasetNotFound, DatasetNotReady, DatasetRejected."""
    dataset = get(session, dataset_id)
    if dataset.state is InputState.INSPECTING:
        raise DatasetNotReady(f"{dataset_id} is still being inspected.")
    if dataset.state is InputState.REJECTED:
        rejection = Rejection.model_validate(dataset.rejection)
        raise DatasetRejected(f"{dataset_id} was rejected: {rejection.message}", rejection.hint)
    return dataset


def delete(session: Session, dataset_id: str) -> None:
    """Raises DatasetNotFound, DatasetInUse. Reports and artifacts of ended jobs stay."""
    get(session, dataset_id)
    try:
        DatasetRepository(session).delete(dataset_id)
    except InUse as error:
        raise DatasetInUse(f"{error}.") from error
