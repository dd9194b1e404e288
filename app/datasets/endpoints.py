"""/v1/datasets."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query, Request, Response
from sqlalchemy.orm import Session

from app import names
from app.datasets import service
from app.datasets.schemas import DatasetForm, DatasetPage, DatasetParameters, DatasetView
from app.dependencies import ReadSession, WriteSession
from app.errors import problems
from app.idempotency import IDEMPOTENCY_ERRORS, Creation, CreationDep
from app.links import links
from app.names import Name
from app.pages import After, Filter, Limit, SpanDep
from app.uploads import digests
from app.uploads.errors import UPLOAD_ERRORS
from app.uploads.incoming import ReceivedFile
from app.uploads.receive import IncomingFileDep, ReprDigest, bare_body, form_body, receive_body, receive_form
from models_store.documents.inspection import DatasetFormat
from models_store.tables import InputState

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

# One parameter for ids and names: OpenAPI takes paths that differ in a parameter's name only for the same path.
DatasetId = Annotated[
    str, Path(alias="dataset", description="The dataset's id.", examples=["dst_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
]
DatasetName = Annotated[Name, Path(alias="dataset")]
UPLOAD_RESPONSES = links(201, "dataset", "get_dataset", "delete_dataset") | problems(
    *UPLOAD_ERRORS, *IDEMPOTENCY_ERRORS
)
FILE = (
    "A zip, tar, tar.gz or tar.xz archive with one folder of images per class or with CIFAR batches, "
    "or an npz file of x and y."
)


@dataclass(frozen=True)
class DatasetUpload:
    """A file that has arrived whole, and what was said about it."""

    name: str
    parameters: DatasetParameters
    file: ReceivedFile

    def identity(self) -> dict[str, Any]:
        """What tells this upload from another one."""
        return {**self.parameters.model_dump(), "name": self.name, "sha256": self.file.sha256}


async def _from_form(request: Request, incoming: IncomingFileDep) -> DatasetUpload:
    form, file, filename = await receive_form(request, incoming, DatasetForm)
    return DatasetUpload(form.name or names.from_filename(filename, "dataset"), form, file)


async def _from_body(
    request: Request,
    name: DatasetName,
    parameters: Annotated[DatasetParameters, Query()],
    incoming: IncomingFileDep,
    repr_digest: ReprDigest = None,
) -> DatasetUpload:
    return DatasetUpload(name, parameters, await receive_body(request, incoming, repr_digest))


@router.post(
    "",
    status_code=201,
    response_model=DatasetView,
    summary="Upload a dataset",
    openapi_extra=form_body(DatasetForm, FILE),
    responses=UPLOAD_RESPONSES,
)
def upload_dataset(
    upload: Annotated[DatasetUpload, Depends(_from_form)],
    creation: CreationDep,
    background: BackgroundTasks,
) -> Response:
    """Send images as an archive of class folders or CIFAR batches, or an npz file; its inspection begins at once."""
    return _add(upload, creation, background)


@router.put(
    "/{dataset}",
    status_code=201,
    response_model=DatasetView,
    summary="Upload a dataset as bare bytes",
    openapi_extra=bare_body(FILE),
    responses=UPLOAD_RESPONSES,
)
def put_dataset(
    upload: Annotated[DatasetUpload, Depends(_from_body)],
    creation: CreationDep,
    background: BackgroundTasks,
) -> Response:
    """The same for `curl -T images.tar.xz`: the body is the file; a Repr-Digest header is checked."""
    return _add(upload, creation, background)


def _add(upload: DatasetUpload, creation: Creation, background: BackgroundTasks) -> Response:
    digests.verify(upload.file, upload.parameters.sha256)
    if (earlier := creation.earlier_answer(upload.identity())) is not None:
        return earlier
    format, blob = service.keep(upload.file, upload.parameters, creation.plane.blobs)

    def create(session: Session) -> tuple[DatasetView, str]:
        dataset = service.register(session, upload.name, format, blob, named=upload.parameters.format is not None)
        return DatasetView.of(dataset), f"/v1/datasets/{dataset.id}"

    background.add_task(creation.plane.doorbell.ring)  # runs after the commit and the answer
    return creation.once(upload.identity(), create)


@router.get("", summary="List datasets")
def list_datasets(
    session: ReadSession,
    span: SpanDep,
    limit: Limit = 50,
    after: After = None,
    state: InputState | None = None,
    format: DatasetFormat | None = None,
    name: Filter = None,
) -> DatasetPage:
    """Newest first, a page at a time."""
    rows = service.page(session, after, limit + 1, state=state, format=format, name=name, span=span)
    return DatasetPage.of([DatasetView.of(dataset) for dataset in rows], limit)


@router.get("/{dataset}", summary="Look at a dataset", responses=problems(service.DatasetNotFound))
def get_dataset(dataset_id: DatasetId, session: ReadSession) -> DatasetView:
    """Its state, and what the inspection found or why it refused."""
    return DatasetView.of(service.get(session, dataset_id))


@router.delete(
    "/{dataset}",
    status_code=204,
    summary="Delete a dataset",
    responses=problems(service.DatasetNotFound, service.DatasetInUse),
)
def delete_dataset(dataset_id: DatasetId, session: WriteSession) -> None:
    """Jobs that have ended keep their reports and artifacts."""
    service.delete(session, dataset_id)
