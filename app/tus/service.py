"""What happens to uploads in pieces: begun, looked at, made a model or a dataset, deleted."""

import re
from collections.abc import Iterator

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.schemas import DatasetForm
from app.dependencies import Plane
from app.errors import ApiError
from app.models import service as models
from app.tus import metadata
from app.tus.errors import PiecesGone, UploadEnded, UploadExpired, UploadNotFound
from app.tus.protocol import PATH
from app.uploads.errors import UploadTooLarge
from app.uploads.incoming import ReceivedFile, incoming_file
from models_store.audit import AuditRepository
from models_store.errors import BlobMissing, NotFound
from models_store.tables import Upload
from models_store.uploads import UploadRepository, scope

UPLOAD_ID = re.compile(r"upl_[0-9a-f]{32}")


def create(session: Session, plane: Plane, purpose: str, size_bytes: int) -> Upload:
    """An upload of which nothing has arrived. Raises UploadTooLarge, RequestValidationError."""
    metadata.read(purpose)
    limit = plane.settings.max_upload_bytes
    if size_bytes > limit:
        raise UploadTooLarge(f"The file is larger than the {limit:,} bytes accepted here.")
    return UploadRepository(session).create(purpose, size_bytes, plane.settings.upload_kept_s)


def get(session: Session, upload_id: str) -> Upload:
    """Raises UploadNotFound, UploadExpired."""
    found = UploadRepository(session).get(upload_id) if UPLOAD_ID.fullmatch(upload_id) else None
    if found is None:
        raise UploadNotFound(f"There is no upload {upload_id}.")
    upload, over = found
    if over:
        raise UploadExpired(f"{upload_id} was kept until {upload.expires_at:%Y-%m-%d %H:%M:%S} UTC.")
    return upload


def delete(plane: Plane, upload_id: str) -> None:
    """Forget it, and what has arrived; what it became stays. Raises UploadNotFound, UploadExpired."""
    with plane.database.session() as session:
        get(session, upload_id)
        UploadRepository(session).delete(upload_id)
        AuditRepository(session).record(f"{PATH}/{upload_id}")
    plane.blobs.delete_scope(scope(upload_id))


def finish(plane: Plane, upload_id: str) -> Upload:
    """Make a whole upload what it is to become, once, however often this is asked for; slow for large files.

    Where its bytes are refused, that is kept as its end, unless another request has made something of it meanwhile.
    Raises UploadNotFound, UploadEnded, PiecesGone, and what `keep` of models and datasets raises.
    """
    with plane.database.session(read_only=True) as session:
        upload = get(session, upload_id)
    if upload.result_id is None and upload.refusal is None:
        try:
            with incoming_file(plane.blobs.incoming_dir, plane.settings.max_upload_bytes) as incoming:
                upload = _keep(plane, upload, incoming.copy(_bytes(plane, upload_id)))
        except ApiError as refusal:
            with plane.database.session() as session:
                upload = _whole(session, upload_id)
                if upload.result_id is None:
                    UploadRepository(session).settle(upload, refusal=refusal.problem.model_dump(mode="json"))
            plane.blobs.delete_scope(scope(upload_id))
            if upload.result_id is None:
                raise
        else:
            plane.blobs.delete_scope(scope(upload_id))
    return upload


def _keep(plane: Plane, upload: Upload, file: ReceivedFile) -> Upload:
    """Through the door that all files come through; registered in the transaction that ends the upload."""
    purpose = metadata.read(upload.purpose)
    if isinstance(purpose.form, DatasetForm):
        format, blob = datasets.keep(file, purpose.form, plane.blobs)
    else:
        blob = models.keep(file, purpose.form, plane.blobs)
    with plane.database.session() as session:
        uploads = UploadRepository(session)
        upload = _whole(session, upload.id)
        if upload.result_id is None:
            uploads.hand_over(upload)
            if isinstance(purpose.form, DatasetForm):
                named = purpose.form.format is not None
                result_id = datasets.register(session, purpose.name, format, blob, named=named).id
                AuditRepository(session).record(f"/v1/datasets/{result_id}")
            else:
                result_id = models.register(session, purpose.name, purpose.form, blob).id
                AuditRepository(session).record(f"/v1/models/{result_id}")
            uploads.settle(upload, result_id)
    return upload


def _whole(session: Session, upload_id: str) -> Upload:
    """The upload, locked until the end of the transaction.

    Raises UploadNotFound where it was deleted meanwhile, UploadEnded where another request has refused it.
    """
    try:
        upload = UploadRepository(session).ended(upload_id)
    except NotFound as error:
        raise UploadNotFound(f"{upload_id} was deleted meanwhile.") from error
    if upload.refusal is not None:
        raise UploadEnded(f"{upload_id} was refused meanwhile.")
    return upload


def _bytes(plane: Plane, upload_id: str) -> Iterator[bytes]:
    with plane.database.session(read_only=True) as session:
        pieces = UploadRepository(session).pieces(upload_id)
    try:
        for piece in pieces:
            yield from plane.blobs.stream(piece.blob_key)
    except BlobMissing as error:
        raise PiecesGone(f"Bytes of {upload_id} that had arrived are there no more.") from error
