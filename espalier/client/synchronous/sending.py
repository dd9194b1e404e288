# Made by `make client` from espalier/client/asynchronous/sending.py: change that file, not this one.
"""Sending a file: at once where it is small, else in an upload that goes on where it broke off."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import quote

from espalier.client import exchange
from espalier.client.files import CHUNK_BYTES, LocalFile, Progress, Unfinished, metadata, state_folder
from espalier.client.synchronous.flow import in_thread, sleep
from espalier.client.synchronous.wire import Wire
from espalier.errors import EspalierError, RequestRefused, ServiceUnreachable, UploadRejected
from espalier.resources import Upload, UploadInPieces
from models_store.documents.inspection import Rejection

SMALL_BYTES = 8 << 20
GIVE_UP_AFTER_S = 120.0  # without a byte that arrived
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}

Resource = Literal["models", "datasets"]


@dataclass(frozen=True)
class Parcel:
    """A file and what is said about it."""

    resource: Resource
    file: LocalFile
    name: str
    parameters: dict[str, str]
    progress: Progress | None = None

    def metadata(self) -> str:
        kind = self.resource.removesuffix("s")
        return metadata({"kind": kind, "name": self.name, "sha256": self.file.sha256, **self.parameters})

    def tell(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, self.file.size_bytes)


@dataclass
class Sender:
    """Sends parcels over a wire; `state` is where uploads that broke off are remembered across processes."""

    wire: Wire
    state: Path = field(default_factory=state_folder)

    def send(self, parcel: Parcel) -> Upload:
        """The model or dataset that the file became."""
        if parcel.file.size_bytes <= SMALL_BYTES:
            return self._at_once(parcel)
        return self._resumably(parcel)

    def _at_once(self, parcel: Parcel) -> Upload:
        content = in_thread(parcel.file.path.read_bytes)
        request = self.wire.request(
            "PUT",
            f"/v1/{parcel.resource}/{quote(parcel.name, safe='')}",
            params=parcel.parameters,
            headers={
                "Content-Type": "application/octet-stream",
                "Repr-Digest": parcel.file.repr_digest,
                **exchange.once(),
            },
            content=content,
        )
        upload = self.wire.ask(request, Upload)
        parcel.tell(len(content))
        return upload

    def _resumably(self, parcel: Parcel) -> Upload:
        """Raises UploadRejected where the whole file is refused, ServiceUnreachable, RequestRefused where nothing more
        arrives. Where the upload stands is forgotten only once it can never go on.
        """
        unfinished = Unfinished(self.state / "uploads")
        fingerprint = unfinished.fingerprint(self.wire.url, parcel.metadata())
        path = in_thread(unfinished.recall, fingerprint)
        if path is None or self._look(path) is None:
            path = self._begin(parcel)
            in_thread(unfinished.remember, fingerprint, path)
        try:
            ended = self._drive(path, parcel)
        except (RequestRefused, UploadRejected) as error:
            if _is_final(error):
                in_thread(unfinished.forget, fingerprint)
            raise
        in_thread(unfinished.forget, fingerprint)
        result_id = ended.model_id or ended.dataset_id
        return self.wire.get(f"/v1/{parcel.resource}/{result_id}", Upload)

    def _begin(self, parcel: Parcel) -> str:
        headers = {
            **TUS,
            **exchange.once(),
            "Upload-Length": str(parcel.file.size_bytes),
            "Upload-Metadata": parcel.metadata(),
        }
        response = self.wire.send(self.wire.request("POST", "/v1/uploads", headers=headers))
        return response.headers["Location"]

    def _look(self, path: str) -> UploadInPieces | None:
        """Where an upload stands; None where it can no longer be continued."""
        try:
            found = self.wire.get(path, UploadInPieces)
        except RequestRefused as error:
            if error.status in (404, 410):
                return None
            raise
        return None if found.state == "refused" else found

    def _drive(self, path: str, parcel: Parcel) -> UploadInPieces:
        """Send what is missing until nothing is, however often the connection breaks."""
        offset, pause = -1, FIRST_PAUSE_S
        trouble_since: float | None = None
        while True:
            try:
                standing = self.wire.get(path, UploadInPieces)
                if standing.state != "receiving":
                    return _settled(standing)
                if standing.offset > offset:
                    offset, pause, trouble_since = standing.offset, FIRST_PAUSE_S, None
                parcel.tell(offset)
                self._append(path, offset, parcel)
            except (ServiceUnreachable, RequestRefused) as error:
                trouble_since = trouble_since or time.monotonic()
                if not _goes_on_after(error) or time.monotonic() - trouble_since > GIVE_UP_AFTER_S:
                    raise
                sleep(max(pause, error.retry_after_s if isinstance(error, RequestRefused) else 0.0))
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _append(self, path: str, offset: int, parcel: Parcel) -> None:
        file = in_thread(parcel.file.path.open, "rb")
        try:
            in_thread(file.seek, offset)
            request = self.wire.request(
                "PATCH",
                path,
                headers={
                    **BYTES,
                    "Upload-Offset": str(offset),
                    "Content-Length": str(parcel.file.size_bytes - offset),
                },
                content=_chunks(file, parcel),
            )
            with self.wire.answer(request) as response:
                response.read()
        finally:
            in_thread(file.close)


def _chunks(file: BinaryIO, parcel: Parcel) -> Iterator[bytes]:
    while chunk := in_thread(file.read, CHUNK_BYTES):
        yield chunk
        parcel.tell(file.tell())


def _goes_on_after(error: EspalierError) -> bool:
    """Whether asking where the upload stands and going on from there may help."""
    if isinstance(error, RequestRefused):
        return error.status in (409, 423, 429, 502, 503, 504)
    return True


def _is_final(error: EspalierError) -> bool:
    """Whether the upload itself was refused; a key that is not let in, or a service in trouble, says nothing of it."""
    if isinstance(error, RequestRefused):
        return 400 <= error.status < 500 and error.status not in (401, 403, 408) and not _goes_on_after(error)
    return isinstance(error, UploadRejected)


def _settled(upload: UploadInPieces) -> UploadInPieces:
    """Raises UploadRejected."""
    if upload.refusal is not None:
        told = upload.refusal
        raise UploadRejected(Rejection(code=told.code, message=told.detail, hint=told.hint))
    return upload
