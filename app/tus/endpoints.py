"""/v1/uploads: tus 1.0, core and the extensions that app/tus/protocol.py names."""

from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Path, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.dependencies import Plane, PlaneDep, ReadSession
from app.errors import problems
from app.idempotency import IDEMPOTENCY_ERRORS, REPLAYED, CreationDep
from app.tus import checksum, errors, metadata, service
from app.tus.checksum import Checksum
from app.tus.protocol import BYTES, EXTENSIONS, PATH, VERSION, VERSION_PARAMETER, UnsupportedTusVersion, require_version
from app.tus.receive import Reception, reception
from app.tus.schemas import UploadView
from app.uploads.errors import UPLOAD_ERRORS, UnsupportedUpload, UploadTooLarge
from models_store.tables import Upload

router = APIRouter(prefix=PATH, tags=["uploads"])

UploadId = Annotated[str, Path(examples=["upl_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])]
UploadLength = Annotated[int, Header(alias="Upload-Length", ge=0, lt=2**63, description="Bytes of the whole file.")]
UploadOffset = Annotated[
    int, Header(alias="Upload-Offset", ge=0, lt=2**63, description="Where in the file the bytes of the body begin.")
]
UploadMetadata = Annotated[
    str,
    Header(
        alias=metadata.HEADER,
        pattern=metadata.PATTERN,
        max_length=metadata.MAX_LENGTH,
        description="Pairs of a key and a value in Base64: `kind` is `model` or `dataset` and is needed; `name` or "
        "`filename`; and what the form of POST /v1/models or POST /v1/datasets takes, such as `format` and `sha256`.",
        examples=["kind bW9kZWw=,filename bmV0Lm9ubng="],
    ),
]
UploadChecksum = Annotated[
    str | None,
    Header(
        alias="Upload-Checksum",
        pattern=checksum.PATTERN,
        description="`sha256 BASE64` of this body: checked before any of it is kept.",
    ),
]

TUS = [Depends(require_version)]
LOOK_ERRORS = (UnsupportedTusVersion, errors.UploadNotFound, errors.UploadExpired)
APPEND_ERRORS = (
    *UPLOAD_ERRORS,
    errors.OffsetMismatch,
    errors.UploadEnded,
    errors.PiecesGone,
    errors.UploadLocked,
    errors.TooManyPieces,
    errors.UnsupportedChecksum,
    errors.ChecksumMismatch,
)
SAID_OF_UPLOADS = {
    name: {"schema": {"type": kind}, "description": text}
    for name, kind, text in (
        ("Upload-Offset", "integer", "Bytes that are kept."),
        ("Upload-Expires", "string", "Until when the upload may be continued."),
        ("Upload-Result", "string", "The model or dataset, once all bytes have arrived."),
    )
}


def _said(status: int, description: str) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": description, "headers": SAID_OF_UPLOADS}}


def _extra(required: bool | None = None) -> dict[str, Any]:
    """`openapi_extra=`: the version, and the body where there is one."""
    schema = {"type": "string", "format": "binary", "description": "Bytes of the file from the offset on."}
    body = {"requestBody": {"required": required, "content": {BYTES: {"schema": schema}}}}
    return {"parameters": [VERSION_PARAMETER], **({} if required is None else body)}


@router.options("", status_code=204, summary="What is known of tus")
def describe_uploads(plane: PlaneDep) -> Response:
    """The version of the protocol, its extensions, the largest file and the checksums, as headers."""
    return Response(
        status_code=204,
        headers={
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(plane.settings.max_upload_bytes),
            "Tus-Checksum-Algorithm": ",".join(checksum.ALGORITHMS),
        },
    )


@router.post(
    "",
    status_code=201,
    response_model=UploadView,
    summary="Begin an upload in pieces",
    dependencies=TUS,
    openapi_extra=_extra(required=False),
    responses=_said(201, "Begun; Location is where the bytes go.")
    | problems(*LOOK_ERRORS, *APPEND_ERRORS, *IDEMPOTENCY_ERRORS),
)
async def create_upload(
    request: Request,
    creation: CreationDep,
    background: BackgroundTasks,
    length: UploadLength,
    purpose: UploadMetadata,
    body_checksum: UploadChecksum = None,
) -> Response:
    """Announce a file, which may break off and be resumed; the body may already carry its first bytes."""
    plane = creation.plane

    def create(session: Session) -> tuple[UploadView, str]:
        upload = service.create(session, plane, purpose, length)
        return UploadView.of(upload), f"{PATH}/{upload.id}"

    identity = {"length": length, "purpose": purpose}
    digest = _checksum(body_checksum)
    answer = await run_in_threadpool(creation.once, identity, create)
    upload_id = answer.headers["Location"].rpartition("/")[2]
    with_bytes = request.headers.get("Content-Type") == BYTES or length == 0
    if with_bytes and REPLAYED not in answer.headers:
        upload = await _append(plane, request, upload_id, 0, digest, background)
    else:
        upload = await run_in_threadpool(_look, plane, upload_id)
    answer.headers.update(_headers(upload))
    answer.body = UploadView.of(upload).model_dump_json().encode()
    answer.headers["Content-Length"] = str(len(answer.body))
    return answer


@router.head(
    "/{upload_id}",
    summary="Ask where an upload stands",
    dependencies=TUS,
    openapi_extra=_extra(),
    response_class=Response,
    responses=_said(200, "Upload-Offset is where to go on.") | problems(*LOOK_ERRORS),
)
def get_upload_offset(upload_id: UploadId, session: ReadSession) -> Response:
    """Upload-Offset says how many bytes are kept: send those that follow."""
    upload = service.get(session, upload_id)
    told = {"Upload-Length": str(upload.size_bytes), metadata.HEADER: upload.purpose}
    return Response(headers=_headers(upload) | told)


@router.get("/{upload_id}", summary="Look at an upload", responses=problems(*LOOK_ERRORS[1:]))
def get_upload(upload_id: UploadId, session: ReadSession) -> UploadView:
    """How much has arrived, and what became of it."""
    return UploadView.of(service.get(session, upload_id))


@router.patch(
    "/{upload_id}",
    status_code=204,
    summary="Send bytes of an upload",
    dependencies=TUS,
    openapi_extra=_extra(required=True),
    response_class=Response,
    responses=_said(204, "Kept.") | problems(*LOOK_ERRORS, *APPEND_ERRORS),
)
async def append_to_upload(
    upload_id: UploadId,
    request: Request,
    plane: PlaneDep,
    background: BackgroundTasks,
    offset: UploadOffset,
    body_checksum: UploadChecksum = None,
) -> Response:
    """The last bytes make it a model or a dataset; where that was interrupted, an empty body asks for it again."""
    content_type = request.headers.get("Content-Type")
    if content_type != BYTES:
        raise UnsupportedUpload(f"Content-Type is {content_type or 'missing'}.", f"Send it with Content-Type: {BYTES}.")
    upload = await _append(plane, request, upload_id, offset, _checksum(body_checksum), background)
    return Response(status_code=204, headers=_headers(upload))


@router.delete(
    "/{upload_id}",
    status_code=204,
    summary="Delete an upload",
    dependencies=TUS,
    openapi_extra=_extra(),
    responses=problems(*LOOK_ERRORS),
)
def delete_upload(upload_id: UploadId, plane: PlaneDep) -> None:
    """What has arrived is gone; the model or dataset that a whole upload became stays."""
    service.delete(plane, upload_id)


async def _append(
    plane: Plane, request: Request, upload_id: str, offset: int, digest: Checksum | None, background: BackgroundTasks
) -> Upload:
    """The upload once the body was kept; with the last bytes, what it became."""
    async with reception(plane, upload_id, offset) as held:
        if offset + int(request.headers.get("Content-Length", 0)) > held.upload.size_bytes:
            raise UploadTooLarge(
                f"The body goes beyond the {held.upload.size_bytes:,} bytes of the file.",
                "Send no more than Upload-Length announced; a longer file needs an upload of its own.",
            )
        await held.take(request.stream(), digest)
        if held.offset == held.upload.size_bytes:
            background.add_task(plane.doorbell.ring)  # runs after the answer
            return await run_in_threadpool(_finish, plane, held)
    return await run_in_threadpool(_look, plane, upload_id)


def _finish(plane: Plane, held: Reception) -> Upload:
    with held.renewed():
        return service.finish(plane, held.upload.id)


def _look(plane: Plane, upload_id: str) -> Upload:
    with plane.database.session(read_only=True) as session:
        return service.get(session, upload_id)


def _checksum(header: str | None) -> Checksum | None:
    return Checksum(header) if header is not None else None


def _headers(upload: Upload) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(upload.offset),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
    }
    if upload.result_id is not None:
        resource = "models" if upload.result_id.startswith("mdl_") else "datasets"
        headers["Upload-Result"] = f"/v1/{resource}/{upload.result_id}"
    return headers
