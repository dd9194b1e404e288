"""Uploads in pieces: where each stands, who is sending bytes for it, and what became of it.

Each piece is a blob in a scope of the upload's own, stored before the row that names it, so `offset` counts bytes that
are on the disk and nothing else; any replica that shares database and blob store can go on. One request at a time
holds an upload. The hold lapses quickly where nothing arrives, so a connection that died without a word keeps nobody
away for long; what makes this safe is that a piece counts only where it begins at the offset and the hold is still
its sender's.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from models_store.database_time import database_now
from models_store.errors import NotFound, UploadHeld, UploadMoved
from models_store.identifiers import new_id
from models_store.quotas import QuotaRepository
from models_store.tables import Upload, UploadPiece

SCOPES = "uploads"
HOLD_S = 5.0
RENEW_S = 1.5


@dataclass(frozen=True)
class Piece:
    """Bytes of an upload that are in the blob store."""

    offset: int
    size_bytes: int
    blob_key: str


def scope(upload_id: str) -> str:
    """Of the blobs of an upload's pieces."""
    return f"{SCOPES}/{upload_id}/"


class UploadRepository:
    """The uploads of one project, in a session of its own. Never commits: the caller's session does."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, purpose: str, size_bytes: int, kept_s: float) -> Upload:
        """An upload of which nothing has arrived; it lasts for `kept_s` seconds from each piece to the next.

        Raises QuotaExceeded.
        """
        QuotaRepository(self._session).require_bytes(size_bytes)
        upload = Upload(
            id=new_id("upl"),
            purpose=purpose,
            size_bytes=size_bytes,
            expires_at=database_now(kept_s),
        )
        self._session.add(upload)
        self._session.flush()
        return upload

    def get(self, id: str) -> tuple[Upload, bool] | None:
        """The upload, and whether its time is over."""
        query = select(Upload, Upload.expires_at < database_now()).where(Upload.id == id)
        found = self._session.execute(query).one_or_none()
        return None if found is None else (found[0], found[1])

    def hold(self, id: str, offset: int) -> str:
        """The right to send bytes from `offset` on: a token, to be renewed every RENEW_S.

        Raises NotFound, UploadHeld where another request has it, UploadMoved where the upload stands elsewhere.
        """
        query = select(Upload, Upload.held_until > database_now()).where(Upload.id == id).with_for_update()
        found = self._session.execute(query.execution_options(populate_existing=True)).one_or_none()
        if found is None:
            raise NotFound(f"there is no upload {id}")
        upload, held = found
        if held:
            raise UploadHeld(f"another request is sending bytes for {id}")
        if upload.offset != offset:
            raise UploadMoved(f"{id} stands at byte {upload.offset:,} and not {offset:,}")
        upload.holder = secrets.token_hex(16)
        upload.held_until = database_now(HOLD_S)
        self._session.flush()
        return upload.holder

    def renew(self, id: str, holder: str) -> None:
        """Keep the hold. Raises UploadMoved where it lapsed and another request has it, or the upload is gone."""
        self._change(id, Upload.holder == holder, held_until=database_now(HOLD_S))

    def release(self, id: str, holder: str) -> None:
        """Give the hold up, if it is still there."""
        self._session.execute(
            update(Upload).where(Upload.id == id, Upload.holder == holder).values(holder=None, held_until=None)
        )

    def add_piece(self, id: str, holder: str, piece: Piece, kept_s: float, *, last: bool = False) -> int:
        """Count a stored piece; the new offset. With `last`, the hold is given up. Raises UploadMoved, as `renew`."""
        self._change(
            id,
            Upload.holder == holder,
            Upload.offset == piece.offset,
            offset=piece.offset + piece.size_bytes,
            pieces=Upload.pieces + 1,
            held_until=None if last else database_now(HOLD_S),
            expires_at=database_now(kept_s),
        )
        self._session.add(UploadPiece(upload_id=id, **asdict(piece)))
        self._session.flush()
        return piece.offset + piece.size_bytes

    def pieces(self, id: str) -> Sequence[UploadPiece]:
        """In the order of their bytes."""
        query = select(UploadPiece).where(UploadPiece.upload_id == id).order_by(UploadPiece.offset)
        return self._session.scalars(query).all()

    def ended(self, id: str) -> Upload:
        """The upload, locked until the end of the transaction. Raises NotFound."""
        query = select(Upload).where(Upload.id == id).with_for_update().execution_options(populate_existing=True)
        upload = self._session.scalar(query)
        if upload is None:
            raise NotFound(f"there is no upload {id}")
        return upload

    def hand_over(self, upload: Upload) -> None:
        """Its bytes are about to be those of a model or dataset, and are not to be counted twice."""
        upload.refusal = {}
        self._session.flush()

    def settle(self, upload: Upload, result_id: str | None = None, refusal: dict[str, Any] | None = None) -> None:
        """Say what became of a whole upload, which needs its pieces no more."""
        upload.result_id, upload.refusal = result_id, refusal
        upload.holder = upload.held_until = None
        self._session.execute(delete(UploadPiece).where(UploadPiece.upload_id == upload.id))
        self._session.flush()

    def delete(self, id: str) -> bool:
        """Whether there was one; delete the blobs of its scope afterwards."""
        found = self._session.scalar(delete(Upload).where(Upload.id == id).returning(Upload.id))
        return found is not None

    def _change(self, id: str, *conditions: ColumnElement[bool], **values: object) -> None:
        statement = (
            update(Upload)
            .where(Upload.id == id, *conditions)
            .values(**values)
            .returning(Upload.id)
            .execution_options(synchronize_session=False)
        )
        if self._session.scalar(statement) is None:
            raise UploadMoved(f"another request has sent bytes for {id} meanwhile, or it is gone")


def delete_expired(session: Session, limit: int = 500) -> Sequence[str]:
    """Forget uploads of all projects whose time is over; their ids."""
    idle = or_(Upload.held_until.is_(None), Upload.held_until < database_now())
    over = select(Upload.id).where(Upload.expires_at < database_now(), idle).limit(limit)
    return session.scalars(delete(Upload).where(Upload.id.in_(over)).returning(Upload.id)).all()


def unfinished(session: Session, ids: Collection[str]) -> set[str]:
    """Those of the uploads whose pieces are still needed."""
    open_ones = select(Upload.id).where(Upload.id.in_(ids), Upload.result_id.is_(None), Upload.refusal.is_(None))
    return set(session.scalars(open_ones))
