"""What a project may use, and what it does use.

A session that works for a user knows the limits (`session.info`); where they are reached, creating raises
QuotaExceeded. Files count for everybody who has them, however often they are stored. A job's minutes are those of all
its attempts, and belong to the calendar month (UTC) in which it ends; deleting the job gives none of them back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from models_store.confinement import PROJECT
from models_store.database_time import database_now
from models_store.documents.job_spec import JobKind
from models_store.errors import QuotaExceeded
from models_store.tables import Dataset, Job, JobArtifact, Model, Project, Upload

LIMITS = "limits"
"""What a session's `info` has the limits under."""
FREE_SOON_S = 30.0
WORK = Job.kind != JobKind.INSPECT.value
"""Inspections of uploads are counted apart."""


@dataclass(frozen=True)
class Limits:
    """None: without a limit."""

    stored_bytes: int | None = None
    unfinished_jobs: int | None = None
    job_minutes: int | None = None
    unfinished_inspections: int | None = None


@dataclass(frozen=True)
class Usage:
    """What a project uses, what it may, and when its job minutes begin anew."""

    stored_bytes: int
    unfinished_jobs: int
    job_minutes: float
    unfinished_inspections: int
    limits: Limits
    month_ends_at: datetime


@dataclass(frozen=True)
class Room:
    """Bytes that a project stores, and may."""

    stored: int
    limit: int

    def require(self, size_bytes: int) -> None:
        """Raise QuotaExceeded where that many bytes more are too many."""
        if self.stored + size_bytes > self.limit:
            raise QuotaExceeded(
                "stored_bytes",
                f"{size_bytes:,} bytes more than the {self.stored:,} there are exceed the {self.limit:,} allowed",
            )


class QuotaRepository:
    """Of the project of a session. Never commits: the caller's session does."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def usage(self) -> Usage:
        now = self._now()
        return Usage(
            self._stored_bytes(),
            self._unfinished_jobs(),
            self._job_minutes(now),
            self._unfinished_inspections(),
            self._limits(),
            _month_end(now),
        )

    def require_bytes(self, size_bytes: int) -> None:
        """Raise QuotaExceeded where that many bytes more are too many. Holds the project until the transaction ends."""
        room = self._room(hold=True)
        if room is not None:
            room.require(size_bytes)

    def room(self) -> Room | None:
        """For bytes that are about to arrive; None: without a limit. Nothing is held: `require_bytes` has the last
        word."""
        return self._room(hold=False)

    def _room(self, *, hold: bool) -> Room | None:
        if LIMITS not in self._session.info:
            return None
        limit = self._limits().stored_bytes
        if limit is None:
            return None
        if hold:
            self._hold_project()
        return Room(self._stored_bytes(), limit)

    def require_inspection(self) -> None:
        """Raise QuotaExceeded where one inspection more is too many. Holds the project until the transaction ends."""
        if LIMITS not in self._session.info:
            return
        limit = self._limits().unfinished_inspections
        if limit is None:
            return
        self._hold_project()
        if self._unfinished_inspections() >= limit:
            message = f"{limit} uploads are being inspected or wait for it, and no more are allowed at once"
            raise QuotaExceeded("unfinished_inspections", message, FREE_SOON_S)

    def require_job(self, jobs: int = 1) -> None:
        """Raise QuotaExceeded where so many jobs more are too many. Holds the project until the transaction ends."""
        if LIMITS not in self._session.info:
            return
        limits = self._limits()
        if limits.unfinished_jobs is None and limits.job_minutes is None:
            return
        self._hold_project()
        most = limits.unfinished_jobs
        if most is not None and (unfinished := self._unfinished_jobs()) + jobs > most:
            message = f"{unfinished} jobs are queued or running, {jobs} more are asked for, and {most} allowed at once"
            raise QuotaExceeded("unfinished_jobs", message, FREE_SOON_S)
        now = self._now()
        if limits.job_minutes is not None and self._job_minutes(now) >= limits.job_minutes:
            message = f"the {limits.job_minutes:,} job minutes of this month are used up"
            raise QuotaExceeded("job_minutes", message, (_month_end(now) - now).total_seconds())

    def keep_minutes(self, jobs: Sequence[Job]) -> None:
        """Go on counting what jobs of one project have used, which are about to be deleted. Holds the project until the
        transaction ends."""
        now = self._now()
        begin = _month_start(now)
        used_s = sum(
            job.used_s for job in jobs if job.kind != JobKind.INSPECT and job.finished_at and job.finished_at >= begin
        )
        if not used_s:
            return
        hold = {"key_share": True}
        project = self._session.get_one(Project, jobs[0].project_id, with_for_update=hold, populate_existing=True)
        before = project.deleted_jobs_at is not None and project.deleted_jobs_at >= begin
        project.deleted_jobs_s = used_s + (project.deleted_jobs_s if before else 0.0)
        project.deleted_jobs_at = now
        self._session.flush()

    def _limits(self) -> Limits:
        """Those of the project, where it has its own, or of everybody."""
        common: Limits = self._session.info.get(LIMITS, Limits())
        project = self._project()
        return Limits(
            common.stored_bytes if project.stored_bytes_limit is None else project.stored_bytes_limit,
            common.unfinished_jobs if project.unfinished_jobs_limit is None else project.unfinished_jobs_limit,
            common.job_minutes if project.job_minutes_limit is None else project.job_minutes_limit,
            common.unfinished_inspections,
        )

    def _project(self) -> Project:
        return self._session.get_one(Project, self._session.info[PROJECT])

    def _hold_project(self) -> None:
        """So that two requests do not both take the last place."""
        self._session.execute(
            select(Project.id).where(Project.id == self._session.info[PROJECT]).with_for_update(key_share=True)
        )

    def _stored_bytes(self) -> int:
        columns = (Model.size_bytes, Dataset.size_bytes, JobArtifact.size_bytes)
        arriving = select(func.sum(Upload.size_bytes)).where(Upload.result_id.is_(None), Upload.refusal.is_(None))
        return sum(self._sum(column) for column in columns) + int(self._session.scalar(arriving) or 0)

    def _sum(self, column: InstrumentedAttribute[int]) -> int:
        return int(self._session.scalar(select(func.sum(column))) or 0)

    def _unfinished_jobs(self) -> int:
        query = select(func.count()).select_from(Job)
        return self._session.scalar(query.where(WORK, Job.kind != JobKind.MASKS.value, Job.finished_at.is_(None))) or 0

    def _unfinished_inspections(self) -> int:
        return self._session.scalar(select(func.count()).select_from(Job).where(~WORK, Job.finished_at.is_(None))) or 0

    def _job_minutes(self, now: datetime) -> float:
        this_month = or_(Job.finished_at.is_(None), Job.finished_at >= _month_start(now))
        ended = self._session.scalar(select(func.sum(Job.used_s)).where(WORK, this_month)) or 0.0
        running = select(Job.started_at).where(WORK, Job.lease_expires_at.is_not(None), Job.started_at.is_not(None))
        deleted = select(Project.deleted_jobs_s).where(
            Project.id == self._session.info[PROJECT], Project.deleted_jobs_at >= _month_start(now)
        )
        used = ended + (self._session.scalar(deleted) or 0.0)
        return (used + sum((now - at).total_seconds() for at in self._session.scalars(running) if at)) / 60

    def _now(self) -> datetime:
        return self._session.execute(select(database_now())).scalar_one()


def _month_start(now: datetime) -> datetime:
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _month_end(now: datetime) -> datetime:
    first = _month_start(now)
    return first.replace(year=now.year + 1, month=1) if now.month == 12 else first.replace(month=now.month + 1)
