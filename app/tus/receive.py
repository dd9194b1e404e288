"""The bytes of one request, kept piece by piece as they come."""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.dependencies import Plane
from app.errors import ApiError
from app.tus import service
from app.tus.checksum import Checksum
from app.tus.errors import OffsetMismatch, TooManyPieces, UploadEnded, UploadLocked, UploadNotFound
from app.uploads.errors import UploadTooLarge
from app.uploads.incoming import IncomingFile, ReceivedFile, incoming_file
from models_store.errors import NotFound, UploadHeld, UploadMoved
from models_store.tables import Upload
from models_store.uploads import HOLD_S, RENEW_S, Piece, UploadRepository, scope

PIECE_BYTES = 32 * 2**20  # what is lost at most when this process is killed
MAX_PIECES = 10_000


class Reception:
    """One request's hold on an upload."""

    def __init__(self, plane: Plane, upload: Upload, holder: str) -> None:
        self.upload = upload
        self.offset = upload.offset
        self._plane = plane
        self._holder = holder
        self._renewed_at = time.monotonic()

    async def take(self, chunks: AsyncIterator[bytes], checksum: Checksum | None) -> None:
        """Keep what comes, to the end of the body.

        What came before the connection broke is kept, too; with a checksum, all is kept or nothing.
        Raises ChecksumMismatch, UploadTooLarge, OffsetMismatch.
        """
        more = True
        while more:
            with incoming_file(self._plane.blobs.incoming_dir, self.upload.size_bytes) as piece:
                try:
                    more = await self._fill(piece, chunks, checksum)
                except ClientDisconnect:
                    if checksum is None:
                        await self._keep(piece, last=True)
                    raise
                if checksum is not None:
                    checksum.verify()
                await self._keep(piece)

    async def _fill(self, piece: IncomingFile, chunks: AsyncIterator[bytes], checksum: Checksum | None) -> bool:
        """Whether more may come after this piece."""
        async for chunk in chunks:
            if self.offset + piece.size_bytes + len(chunk) > self.upload.size_bytes:
                raise UploadTooLarge(
                    f"More came than the {self.upload.size_bytes:,} bytes that were announced.",
                    "Upload-Length is the size of the whole file: begin a new upload if it has changed.",
                )
            await piece.write(chunk)
            if checksum is not None:
                checksum.update(chunk)
            elif piece.size_bytes >= PIECE_BYTES:
                return True
            if time.monotonic() - self._renewed_at > RENEW_S:
                await run_in_threadpool(self._renew)
        return False

    async def _keep(self, piece: IncomingFile, *, last: bool = False) -> None:
        if piece.size_bytes:
            file = await piece.complete()
            self.offset = await run_in_threadpool(self._count, file, last)

    def _count(self, file: ReceivedFile, last: bool) -> int:
        """The offset once the piece is stored and named by its row."""
        blob = self._plane.blobs.adopt(file.path, scope(self.upload.id), file.sha256)
        kept_s = self._plane.settings.upload_kept_s
        with _moves(), self._plane.database.session() as session:
            piece = Piece(self.offset, blob.size_bytes, blob.key)
            uploads = UploadRepository(session)
            return uploads.add_piece(self.upload.id, self._holder, piece, kept_s, last=last)

    def _renew(self) -> None:
        self._renewed_at = time.monotonic()
        with _moves(), self._plane.database.session() as session:
            UploadRepository(session).renew(self.upload.id, self._holder)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Keeps the hold through work that lasts, from a thread of its own: those of the pool may all be at such work.

        Where it is lost all the same, the work goes on: it is done once, whoever comes first.
        """
        over = threading.Event()

        def renew() -> None:
            while not over.wait(RENEW_S):
                try:
                    self._renew()
                except SQLAlchemyError:
                    continue  # the database is away or busy, and may be back before the hold lapses
                except ApiError:
                    return

        thread = threading.Thread(target=renew, name=f"hold {self.upload.id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def release(self) -> None:
        with suppress(OperationalError), self._plane.database.session() as session:  # it lapses by itself
            UploadRepository(session).release(self.upload.id, self._holder)


@asynccontextmanager
async def reception(plane: Plane, upload_id: str, offset: int) -> AsyncIterator[Reception]:
    """The upload to ourselves, for bytes from `offset` on.

    Raises UploadNotFound, UploadExpired, UploadEnded, TooManyPieces, UploadLocked, OffsetMismatch.
    """
    held = await run_in_threadpool(_hold, plane, upload_id, offset)
    try:
        yield held
    finally:
        await run_in_threadpool(held.release)


def _hold(plane: Plane, upload_id: str, offset: int) -> Reception:
    with _moves(), plane.database.session() as session:
        upload = service.get(session, upload_id)
        if upload.result_id is not None or upload.refusal is not None:
            raise UploadEnded(f"All {upload.size_bytes:,} bytes of {upload_id} have arrived.")
        if upload.pieces >= MAX_PIECES:
            raise TooManyPieces(f"{upload_id} came in {upload.pieces:,} pieces so far.")
        holder = UploadRepository(session).hold(upload_id, offset)
    return Reception(plane, upload, holder)


@contextmanager
def _moves() -> Iterator[None]:
    """The store's refusals as answers."""
    try:
        yield
    except NotFound as error:
        raise UploadNotFound(f"{error}.") from error
    except UploadHeld as error:
        raise UploadLocked(f"{error}.", headers={"Retry-After": str(int(HOLD_S))}) from error
    except UploadMoved as error:
        raise OffsetMismatch(f"{error}.") from error
