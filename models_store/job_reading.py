"""What is asked of jobs without changing one: rows, events, reports, files, and the queue."""

from collections.abc import Sequence
from typing import Any, TypeVarTuple

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from models_store import mask_parts, sweeps
from models_store.database_time import database_now
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind
from models_store.documents.mask_part import MaskPart, MaskScores
from models_store.documents.sweep_report import SweepPoint
from models_store.spans import ALWAYS, Span
from models_store.tables import Job, JobArtifact, JobEvent, JobReport

Columns = TypeVarTuple("Columns")

UNASKED = (JobKind.INSPECT.value, JobKind.MASKS.value)
"""Kinds of jobs that nobody asks for: other things make them."""


class JobReader:
    """The queries of a job repository."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, id: str) -> Job | None:
        return self._session.get(Job, id)

    def list(
        self,
        after: str | None = None,
        limit: int = 50,
        state: JobState | None = None,
        kind: JobKind | None = None,
        model_id: str | None = None,
        label: str | None = None,
        span: Span = ALWAYS,
        parent_id: str | None = None,
    ) -> Sequence[Job]:
        """Newest first; `after` is the id of the last row of the page before. Inspections and parts of jobs only where
        asked for."""
        query = select(Job).order_by(Job.id.desc()).limit(limit)
        query = query.where(Job.kind == kind.value if kind else Job.kind.not_in(UNASKED))
        if after is not None:
            query = query.where(Job.id < after)
        if state is not None:
            query = query.where(Job.state == state)
        if model_id is not None:
            query = query.where(Job.model_id == model_id)
        if label is not None:
            query = query.where(Job.label == label)
        if parent_id is not None:
            query = query.where(Job.parent_id == parent_id)
        return self._session.scalars(query.where(*span.holds(Job.created_at))).all()

    def points(self, sweep_id: str) -> Sequence[SweepPoint]:
        """What became of a sweep's points so far, in the order of its budgets."""
        return sweeps.points(self._session, sweep_id)

    def mask_parts(self, job_id: str) -> tuple[Sequence[MaskPart], Sequence[MaskScores]]:
        """The parts that a job's random masks were spread over, and the scores of those that succeeded."""
        return mask_parts.of_job(self._session, job_id), mask_parts.scores(self._session, job_id)

    def events(self, job_id: str, after_seq: int = 0, limit: int = 1000) -> Sequence[JobEvent]:
        """What happened after event number `after_seq`, in order."""
        query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after_seq)
        return self._session.scalars(query.order_by(JobEvent.seq).limit(limit)).all()

    def report(self, job_id: str) -> dict[str, Any] | None:
        """The `Report` document of a job that succeeded with one."""
        return self._session.scalar(select(JobReport.document).where(JobReport.job_id == job_id))

    def artifacts(self, job_id: str) -> Sequence[JobArtifact]:
        query = select(JobArtifact).where(JobArtifact.job_id == job_id).order_by(JobArtifact.name)
        return self._session.scalars(query).all()

    def artifact(self, job_id: str, name: str) -> JobArtifact | None:
        return self._session.get(JobArtifact, (job_id, name))

    def queued_count(self) -> int:
        """Jobs that a worker could claim now."""
        return self._session.scalar(_claimable(select(func.count()).select_from(Job))) or 0


def _claimable(query: Select[*Columns]) -> Select[*Columns]:
    return query.where(Job.state == JobState.QUEUED, Job.claimable_at <= database_now())
