"""Models and datasets: what both repositories do alike."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from models_store.documents.job import JobState
from models_store.errors import InUse
from models_store.identifiers import Prefix, new_id
from models_store.quotas import QuotaRepository
from models_store.spans import ALWAYS, Span
from models_store.tables import Dataset, InputState, Job, Model

Row = TypeVar("Row", Model, Dataset)

UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)


class InputRepository(Generic[Row]):
    """Rows of one table of inputs. Never commits: the caller's session does."""

    _table: type[Row]
    _prefix: Prefix

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self, name: str, format: str, sha256: str, size_bytes: int, blob_key: str, details: dict[str, Any] | None = None
    ) -> Row:
        """A new row, `inspecting` until its inspect job ends; create that job in the same transaction.

        Raises QuotaExceeded.
        """
        QuotaRepository(self._session).require_bytes(size_bytes)
        row = self._table(
            id=new_id(self._prefix),
            name=name,
            format=format,
            sha256=sha256,
            size_bytes=size_bytes,
            blob_key=blob_key,
            details=details or {},
        )
        self._session.add(row)
        self._session.flush()
        return row

    def get(self, id: str) -> Row | None:
        return self._session.get(self._table, id)

    def list(
        self,
        after: str | None = None,
        limit: int = 50,
        state: InputState | None = None,
        format: str | None = None,
        name: str | None = None,
        span: Span = ALWAYS,
    ) -> Sequence[Row]:
        """Newest first; `after` is the id of the last row of the page before."""
        query = select(self._table).order_by(self._table.id.desc()).limit(limit)
        if after is not None:
            query = query.where(self._table.id < after)
        if state is not None:
            query = query.where(self._table.state == state)
        if format is not None:
            query = query.where(self._table.format == format)
        if name is not None:
            query = query.where(self._table.name == name)
        return self._session.scalars(query.where(*span.holds(self._table.created_at))).all()

    def delete(self, id: str) -> bool:
        """Delete the row and say whether there was one; its blob stays, since others may share it.

        Raises `InUse` while a job that has not ended needs it. Ended jobs remain, without the reference.
        """
        row = self._session.get(self._table, id, with_for_update=True)
        if row is None:
            return False
        reference = Job.model_id if self._table is Model else Job.dataset_id
        user = self._session.scalar(select(Job.id).where(reference == id, Job.state.in_(UNFINISHED)).limit(1))
        if user is not None:
            raise InUse(f"{id} is needed by {user}, which has not ended: cancel that job first")
        self._session.delete(row)
        self._session.flush()
        return True

    def mark_rejected(self, id: str, rejection: dict[str, Any]) -> bool:
        """Refuse an input that is still being inspected, with a `Rejection` document; false if it no longer is."""
        return self._settle(id, state=InputState.REJECTED, rejection=rejection)

    def _settle(self, id: str, **values: object) -> bool:
        """Inspection ends once: the first verdict stands."""
        statement = (
            update(self._table)
            .where(self._table.id == id, self._table.state == InputState.INSPECTING)
            .values(**values)
            .returning(self._table.id)
            .execution_options(synchronize_session="fetch")
        )
        return self._session.scalar(statement) is not None
