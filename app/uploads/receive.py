"""The two ways a file comes in: as one field of a form, or as the bare body of a request."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.dependencies import Plane, PlaneDep
from app.idempotency import IdempotencyKeyReused, Key
from app.uploads import digests
from app.uploads.errors import UnsupportedUpload, UploadTooLarge
from app.uploads.incoming import IncomingFile, ReceivedFile, Room, incoming_file
from app.uploads.multipart import FILE_FIELD, FORM_OVERHEAD_BYTES, form_reader
from models_store.idempotency import IdempotencyRepository
from models_store.quotas import QuotaRepository

Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Repetition:
    """Room for a file that is stored already: what is larger is another one."""

    key: str
    stored_bytes: int

    def require(self, size_bytes: int) -> None:
        """Raises IdempotencyKeyReused."""
        if size_bytes > self.stored_bytes:
            stored = f"a request that stored {self.stored_bytes:,} bytes"
            raise IdempotencyKeyReused(f"The key {self.key} belongs to {stored}.")


def _incoming_file(request: Request, plane: PlaneDep, key: Key = None) -> Iterator[IncomingFile]:
    """What will be refused for its size is refused here, before any of it is asked for: a client that waits for
    `100 Continue` sends nothing, and from another one the rest is read and dropped, so that it hears the answer.

    Raises UploadTooLarge, QuotaExceeded, IdempotencyKeyReused.
    """
    limit = plane.settings.max_upload_bytes
    announced = int(request.headers.get("Content-Length", 0))
    if announced > limit + FORM_OVERHEAD_BYTES:
        raise UploadTooLarge(f"The file is larger than the {limit:,} bytes accepted here.")
    room = _room(plane, key)
    if room is not None:
        in_form = request.headers.get("Content-Type", "").startswith("multipart/")
        room.require(announced - (FORM_OVERHEAD_BYTES if in_form else 0))
    with incoming_file(plane.blobs.incoming_dir, limit, room) as file:
        yield file


def _room(plane: Plane, key: str | None) -> Room | None:
    """None where any number of bytes may come. A request that was answered before is answered so again, in a full
    project, too."""
    with plane.database.session(read_only=True) as session:
        answer = IdempotencyRepository(session).answered(key) if key is not None else None
        if key is not None and answer is not None:
            return Repetition(key, json.loads(answer.body).get("size_bytes", 0))
        return QuotaRepository(session).room()


# Scope "function": what was not kept is gone before the answer is sent.
IncomingFileDep = Annotated[IncomingFile, Depends(_incoming_file, scope="function")]
ReprDigest = Annotated[
    str | None,
    Header(
        pattern=digests.REPR_DIGEST, description="`sha-256=:BASE64:` (RFC 9530), checked against the bytes that arrive."
    ),
]


async def receive_form(request: Request, incoming: IncomingFile, form: type[Form]) -> tuple[Form, ReceivedFile, str]:
    """The fields, the file and the file's name out of a multipart request.

    Raises RequestValidationError for the fields, and what `FormReader.read` raises.
    """
    reader = form_reader(request)
    await reader.read(request.stream(), incoming)
    try:
        fields = form.model_validate(reader.fields)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)]
        raise RequestValidationError(faults) from error
    return fields, await incoming.complete(), reader.filename or ""


async def receive_body(request: Request, incoming: IncomingFile, repr_digest: str | None) -> ReceivedFile:
    """The file that is the request's body, of the digest announced for it."""
    if request.headers.get("Content-Type", "").startswith("multipart/"):
        raise UnsupportedUpload(
            "This path takes the bare bytes of a file, not a form.", "Use `curl -T FILE`, or POST the form instead."
        )
    announced = digests.from_repr_digest(repr_digest) if repr_digest is not None else None
    async for chunk in request.stream():
        await incoming.write(chunk)
    file = await incoming.complete()
    digests.verify(file, announced)
    return file


def form_body(form: type[BaseModel], file_description: str) -> dict[str, Any]:
    """`openapi_extra=` of an endpoint that reads such a form by itself: what Swagger UI shows as boxes to fill."""
    schema = form.model_json_schema()
    boxes = {name: _box(box) for name, box in schema["properties"].items()}
    file = {"type": "string", "format": "binary", "description": file_description}
    schema |= {"properties": {FILE_FIELD: file} | boxes, "required": [FILE_FIELD]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _box(schema: dict[str, Any]) -> dict[str, Any]:
    """A field that may be left out: a form has no null, and without an example Swagger UI would invent a value."""
    kinds = schema.pop("anyOf", [])
    if not kinds:
        return schema
    value: dict[str, Any] = next(kind for kind in kinds if kind != {"type": "null"})
    return value | {key: kept for key, kept in schema.items() if key != "default"} | {"examples": [""]}


def bare_body(description: str) -> dict[str, Any]:
    """`openapi_extra=` of an endpoint whose body is a file."""
    schema = {"type": "string", "format": "binary", "description": description}
    return {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": schema}}}}
