"""The job state machine: the only module that changes a job's state, and the only source of its state events.

A worker owns a job by a claim: worker, attempt number, and a lease on the database's clock that its heartbeats
renew. Every write by a worker is fenced: it first takes the row on condition that worker and attempt are still
its own, so a worker that lost its lease to another can write nothing. `_take` holds the row until the transaction
ends (FOR UPDATE on PostgreSQL; SQLite has one writer at a time), so what is read there is still true when written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVarTuple

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, select, update
from sqlalchemy.orm import aliased

from models_store import outbox, stages, sweeps
from models_store.checkpoints import CheckpointRepository
from models_store.database_time import database_now
from models_store.datasets import DatasetRepository
from models_store.documents.event import ErrorClass, EventType, JobError
from models_store.documents.inspection import Rejection
from models_store.documents.job import JobState, Stage, StageState
from models_store.documents.job_spec import JobKind, Priority, SweepSpec
from models_store.documents.mask_part import MaskParts
from models_store.errors import InUse, LeaseLost, NotFound
from models_store.identifiers import new_id
from models_store.job_reading import JobReader
from models_store.models import ModelRepository
from models_store.quotas import QuotaRepository
from models_store.tables import Dataset, Job, JobArtifact, JobEvent, JobReport, Model

LEASE_S = 60.0
MAX_ATTEMPTS = 3
RETRY_DELAYS_S = (2.0, 10.0)  # before the second attempt, before the third
INSPECTION_RANK = 0  # an upload's owner waits for its inspection
RANKS = {Priority.HIGH: 5, Priority.NORMAL: 10, Priority.LOW: 15}

Columns = TypeVarTuple("Columns")

HELD = (JobState.RUNNING, JobState.CANCELLING)
ENDED_BADLY = (JobState.FAILED, JobState.CANCELLED)
_ENDINGS = {JobState.SUCCEEDED: "succeeded", JobState.FAILED: "failed", JobState.CANCELLED: "been cancelled"}

WORKER_LOST = JobError(
    code="worker_lost",
    error_class=ErrorClass.INFRASTRUCTURE,
    message=f"The worker disappeared {MAX_ATTEMPTS} times while it ran this job.",
    hint="Look at the workers' logs: a job that needs more memory than a worker has looks like this.",
)
CANCELLED = JobError(
    code="inspection_cancelled",
    error_class=ErrorClass.USER,
    message="The inspection of this upload was cancelled.",
    hint="Upload it again.",
)


@dataclass(frozen=True)
class Claim:
    """A worker's right to run one attempt of a job."""

    job_id: str
    attempt: int
    worker: str
    kind: str
    spec: dict[str, Any]
    model_id: str | None
    dataset_id: str | None
    deadline_s: int


@dataclass(frozen=True)
class Heartbeat:
    """What the row says to the worker that renewed its lease."""

    cancel_requested: bool


@dataclass(frozen=True)
class NewArtifact:
    """A file that a job made, already in the blob store."""

    name: str
    media_type: str
    size_bytes: int
    sha256: str
    blob_key: str


class JobRepository(JobReader):
    """All SQL on jobs. Never commits: the caller's session does."""

    # What users ask for

    def create(
        self,
        kind: JobKind,
        spec: Mapping[str, Any],
        model_id: str | None = None,
        dataset_id: str | None = None,
        deadline_s: int = 24 * 3600,
        label: str | None = None,
        priority: Priority = Priority.NORMAL,
        parent_id: str | None = None,
    ) -> Job:
        """A queued job of the project that its model and dataset belong to.

        Raises `NotFound` where these are not (or no longer) there, or are of different projects; `QuotaExceeded`.
        """
        if kind is JobKind.INSPECT:
            QuotaRepository(self._session).require_inspection()
        else:
            QuotaRepository(self._session).require_job()
        owners = {self._require(table, id) for table, id in ((Model, model_id), (Dataset, dataset_id)) if id}
        if len(owners) > 1:
            raise NotFound(f"the project of {model_id} has no {dataset_id}")
        job = Job(
            id=new_id("job"),
            kind=kind.value,
            spec=dict(spec),
            model_id=model_id,
            dataset_id=dataset_id,
            deadline_s=deadline_s,
            label=label,
            parent_id=parent_id,
            priority=INSPECTION_RANK if kind is JobKind.INSPECT else RANKS[priority],
            stages=stages.dump(stages.initial(kind)),
        )
        for project_id in owners:
            job.project_id = project_id
        self._session.add(job)
        self._session.flush()
        self._emit(job, job.created_at, EventType.STATE, {"state": JobState.QUEUED, "attempt": 0})
        self._session.flush()
        return job

    def create_sweep(self, spec: SweepSpec) -> Job:
        """A sweep and a queued prune job for each of its points, in their order. Raises `NotFound` as `create` does.

        The sweep stays queued, without a worker, until the last point has ended; then it is claimed like any job.
        """
        inputs = (spec.model_id, spec.dataset_id, spec.deadline_s, spec.label, spec.priority)
        sweep = self.create(JobKind.SWEEP, spec.model_dump(mode="json"), *inputs)
        self._wait_for_parts(sweep, sweep.created_at, sweeps.POINTS)
        for point in spec.jobs():
            self.create(JobKind.PRUNE, point.model_dump(mode="json"), *inputs, parent_id=sweep.id)
        return sweep

    def request_cancel(self, id: str) -> Job | None:
        """Cancel a queued job at once and ask a running one to stop; an ended one stays as it is.

        With a sweep its points are cancelled, with a job its parts.
        """
        # Held before what they belong to, as where one ends: so two transactions never wait for each other.
        parts = self._hold_parts(*self._child_ids(id))
        points = self._hold_parts(id)
        taken = self._take(Job.id == id)
        if taken is None:
            return None
        job, now = taken
        for each in (job, *points, *parts):
            if each.state is JobState.QUEUED:
                self._end(each, now, JobState.CANCELLED)
            elif each.state is JobState.RUNNING:
                each.state = JobState.CANCELLING
                self._emit_state(each, now)
        self._session.flush()
        return job

    def delete(self, id: str) -> bool:
        """Delete a job that has ended, its files and report, and with a sweep its points, with a job its parts.

        Says whether there was one. Its blobs stay, since others may share them, and the minutes that it used are still
        counted; runs of pipelines remain, without the reference. Raises `InUse` where not all of that has ended, and
        for a point or part of what has not succeeded, which may go on from it.
        """
        below = [*self._hold_parts(*self._child_ids(id)), *self._hold_parts(id)]  # in the order of `request_cancel`
        taken = self._take(Job.id == id)
        if taken is None:
            return False
        job, _ = taken
        for each in (job, *below):
            if not each.state.ended:
                whose = "" if each is job else f", which goes with {id},"
                raise InUse(f"{each.id}{whose} is {each.state}")
        above = self._take(Job.id == job.parent_id)
        if above is not None and above[0].state is not JobState.SUCCEEDED:
            raise InUse(f"{id} is a part of {job.parent_id}, which is {above[0].state} and may go on from it")
        QuotaRepository(self._session).keep_minutes([job, *below])
        self._session.execute(delete(Job).where(Job.id.in_([job.id, *(each.id for each in below)])))
        return True

    def retry(self, id: str, *, afresh: bool) -> Job | None:
        """Queue a job again that failed or was cancelled, with all its attempts before it; None if it did neither.

        It goes on from its last checkpoint, or with `afresh` from the beginning. A sweep's points and a job's parts
        that failed or were cancelled are queued again with it; `afresh` there are no parts yet. Raises `NotFound` where
        its model or dataset is gone, or was not there any more when it ended; `QuotaExceeded`.
        """
        job = self.get(id)
        if job is None or job.model_id is None or (job.spec.get("dataset_id") and job.dataset_id is None):
            raise NotFound(f"the model or dataset of {id} is gone")
        self._require(Model, job.model_id)  # before the job's own row, as a deletion of these takes them
        if job.dataset_id is not None:
            self._require(Dataset, job.dataset_id)
        points = self._hold_parts(id)
        taken = self._take(Job.id == id, Job.state.in_(ENDED_BADLY))
        if taken is None:
            return None
        job, now = taken
        if afresh:
            for part in (each for each in points if each.kind == JobKind.MASKS and each.state.ended):
                self._session.delete(part)
            points = [each for each in points if each.kind != JobKind.MASKS]
        again = [job, *(point for point in points if point.state in ENDED_BADLY)]
        QuotaRepository(self._session).require_job(sum(each.kind != JobKind.MASKS for each in again))
        for each in again:
            if afresh:
                CheckpointRepository(self._session).forget(each.id)
            each.failed_attempts = 0
            each.finished_at = each.error = None
            self._requeue(each, now)
        if any(not point.state.ended for point in points):
            self._wait_for_parts(job, now, sweeps.POINTS if job.kind == JobKind.SWEEP else None)
        return job

    # What workers do

    def claim(self, worker: str, lease_s: float = LEASE_S) -> Claim | None:
        """Take the queued job that is first in line, or none.

        An inspection goes first, unless another of its project is at work; then jobs by priority; among equals the
        project with the fewest jobs at work has its turn, with its oldest. Stages that another release gave the job
        become those of this one.
        """
        queued = aliased(Job)
        inspections = func.sum(case((Job.kind == JobKind.INSPECT.value, 1), else_=0))
        at_work = (
            select(Job.project_id, func.count().label("jobs"), inspections.label("inspections"))
            .where(Job.state.in_(HELD))
            .group_by(Job.project_id)
            .subquery()
        )
        one_of_many = and_(queued.priority == INSPECTION_RANK, at_work.c.inspections > 0)
        rank = case((one_of_many, RANKS[Priority.NORMAL]), else_=queued.priority)
        first = (
            select(queued.id)
            .outerjoin(at_work, at_work.c.project_id == queued.project_id)
            .where(queued.state == JobState.QUEUED, queued.claimable_at <= database_now())
            .order_by(rank, func.coalesce(at_work.c.jobs, 0), queued.id)
            .limit(1)
            .with_for_update(of=queued, skip_locked=True)
        )
        statement = (
            update(Job)
            .where(Job.id == first.scalar_subquery(), Job.state == JobState.QUEUED)
            .values(
                state=JobState.RUNNING,
                attempt=Job.attempt + 1,
                worker=worker,
                started_at=database_now(),
                lease_expires_at=database_now(lease_s),
            )
            .returning(Job, database_now())
            .execution_options(populate_existing=True, synchronize_session=False)
        )
        taken = self._session.execute(statement).one_or_none()
        if taken is None:
            return None
        job, now = taken
        self._reconcile_stages(job)
        self._emit_state(job, now)
        self._session.flush()
        return Claim(
            job_id=job.id,
            attempt=job.attempt,
            worker=worker,
            kind=job.kind,
            spec=job.spec,
            model_id=job.model_id,
            dataset_id=job.dataset_id,
            deadline_s=job.deadline_s,
        )

    def heartbeat(self, claim: Claim, lease_s: float = LEASE_S) -> Heartbeat:
        """Renew the lease and learn whether the job is to stop. Raises `LeaseLost`."""
        statement = (
            update(Job)
            .where(*_fence(claim))
            .values(lease_expires_at=database_now(lease_s))
            .returning(Job.state)
            .execution_options(synchronize_session=False)
        )
        state = self._session.scalar(statement)
        if state is None:
            raise LeaseLost(_lost(claim))
        return Heartbeat(cancel_requested=state is JobState.CANCELLING)

    def hold(self, claim: Claim) -> None:
        """Fence what else is written in this transaction, such as the verdict of an inspection. Raises `LeaseLost`.

        Every other write here fences itself.
        """
        self._held(claim)

    def append_events(self, claim: Claim, events: Sequence[tuple[EventType, Mapping[str, Any]]]) -> None:
        """Number and keep what the attempt reports, and move its stages. Raises `LeaseLost`.

        `stage` and `progress` events carry a `StageChange` and a `StageProgress`. `ValueError` for other data, an
        unknown stage, and for state events, which only this module makes.
        """
        job, now = self._held(claim)
        moved = stages.load(job.stages)
        for type, data in events:
            if type is EventType.STATE:
                raise ValueError("state events are made by the state machine, not by workers")
            moved = stages.apply(moved, type, data, now)
            self._emit(job, now, type, data)
        self._set_stages(job, moved)
        self._session.flush()

    def succeed(
        self, claim: Claim, report: Mapping[str, Any] | None = None, artifacts: Sequence[NewArtifact] = ()
    ) -> None:
        """End the job well; report and artifacts become visible with it. Raises `LeaseLost`.

        An inspection gives its verdict in the same transaction: `hold`, then `mark_ready`, then this.
        """
        job, now = self._held(claim)
        if job.kind == JobKind.INSPECT and self._reject_input(job, CANCELLED):
            raise ValueError(f"{job.id} inspected nothing: mark its input ready or rejected before `succeed`")
        if report is not None:
            self._session.add(JobReport(job_id=job.id, document=dict(report)))
        self._session.add_all(JobArtifact(job_id=job.id, **asdict(artifact)) for artifact in artifacts)
        self._end(job, now, JobState.SUCCEEDED)

    def fail(self, claim: Claim, error: JobError, retry: bool = False) -> None:
        """End the attempt badly; with `retry`, the job waits for another one if it has any left. Raises `LeaseLost`."""
        job, now = self._held(claim)
        job.failed_attempts += 1
        if retry and job.state is JobState.CANCELLING:
            self._end(job, now, JobState.CANCELLED)
        elif retry and job.failed_attempts < MAX_ATTEMPTS:
            self._requeue(job, now, error, RETRY_DELAYS_S[job.failed_attempts - 1])
        else:
            self._end(job, now, JobState.FAILED, error)

    def cancelled(self, claim: Claim) -> None:
        """The worker stopped because it was asked to. Raises `LeaseLost`, and `ValueError` if nobody asked."""
        job, now = self._held(claim)
        if job.state is not JobState.CANCELLING:
            raise ValueError(f"nobody asked to cancel {job.id}: use `fail` or `release`")
        self._end(job, now, JobState.CANCELLED)

    def release(self, claim: Claim) -> None:
        """Give the job back (a worker that drains): another continues, and no attempt is spent. Raises `LeaseLost`."""
        job, now = self._held(claim)
        if job.state is JobState.CANCELLING:
            self._end(job, now, JobState.CANCELLED)
        else:
            self._requeue(job, now)

    def spread(self, claim: Claim, asked_for: MaskParts) -> None:
        """Give the job back until its parts, jobs of their own, have ended; no attempt is spent. Raises `LeaseLost`.

        Parts go before other jobs of the same priority: they are work that has begun.
        """
        job, now = self._held(claim)
        if job.state is JobState.CANCELLING:
            return self._end(job, now, JobState.CANCELLED)
        for part in asked_for.parts:
            inputs = (job.model_id, job.dataset_id, job.deadline_s)
            made = self.create(JobKind.MASKS, part.model_dump(mode="json"), *inputs, parent_id=job.id)
            made.priority = job.priority - 1
        now = self._now()
        self._count_use(job, now)
        job.state = JobState.QUEUED
        job.worker = job.lease_expires_at = job.started_at = None
        self._emit_state(job, now)
        self._wait_for_parts(job, now, asked_for.stage)

    # What the sweeper does

    def reap_expired(self, limit: int = 100) -> Sequence[str]:
        """Take jobs from workers that stopped renewing their lease; their ids.

        Each goes back to the queue, or fails as `worker_lost` when its attempts are spent; one that was to be
        cancelled is.
        """
        expired = (
            select(Job)
            .where(Job.state.in_(HELD), Job.lease_expires_at < database_now())
            .order_by(Job.lease_expires_at)
            .limit(limit)
        )
        reaped = []
        for job in self._session.scalars(_locking(expired, skip_locked=True)).all():
            now = self._now()
            job.failed_attempts += 1
            if job.state is JobState.CANCELLING:
                self._end(job, now, JobState.CANCELLED)
            elif job.failed_attempts >= MAX_ATTEMPTS:
                self._end(job, now, JobState.FAILED, WORKER_LOST)
            else:
                self._requeue(job, now)
            reaped.append(job.id)
        return reaped

    # How it is done

    def _require(self, table: type[Model] | type[Dataset], id: str) -> str:
        """The project of the row, which is kept from being deleted meanwhile."""
        query = select(table.project_id).where(table.id == id).with_for_update(read=True, key_share=True)
        project_id = self._session.scalar(query)
        if project_id is None:
            raise NotFound(f"there is no {id}")
        return project_id

    def _take(self, *conditions: ColumnElement[bool]) -> tuple[Job, datetime] | None:
        """The row that meets the conditions, held until the transaction ends, and the database's time."""
        job = self._session.scalar(_locking(select(Job).where(*conditions)))
        return None if job is None else (job, self._now())

    def _now(self) -> datetime:
        """Asked for when the row is held: an earlier time might come before that of the last event."""
        return self._session.execute(select(database_now())).scalar_one()

    def _held(self, claim: Claim) -> tuple[Job, datetime]:
        taken = self._take(*_fence(claim))
        if taken is None:
            raise LeaseLost(_lost(claim))
        return taken

    def _requeue(self, job: Job, now: datetime, error: JobError | None = None, delay_s: float = 0.0) -> None:
        self._count_use(job, now)
        job.state = JobState.QUEUED
        job.worker = job.lease_expires_at = job.started_at = None
        job.claimable_at = now + timedelta(seconds=delay_s)
        self._set_stages(job, stages.initial(job.kind))
        self._emit_state(job, now, error)
        self._session.flush()

    def _end(self, job: Job, now: datetime, state: JobState, error: JobError | None = None) -> None:
        self._count_use(job, now)
        job.state = state
        job.lease_expires_at = None
        job.finished_at = now
        job.error = error.model_dump(mode="json") if error else None
        final = {JobState.SUCCEEDED: StageState.DONE, JobState.FAILED: StageState.FAILED}
        message = error.message if error else None
        ended = stages.ended(stages.load(job.stages), final.get(state, StageState.CANCELLED), now, message)
        self._set_stages(job, ended)
        if job.kind == JobKind.INSPECT and state is not JobState.SUCCEEDED:
            self._reject_input(job, error or CANCELLED)
        self._emit_state(job, now, error)
        self._session.flush()
        if job.parent_id is not None:
            self._tell_parent(job, job.parent_id)

    def _child_ids(self, id: str) -> Sequence[str]:
        """The points of a sweep, the parts of a job."""
        return self._session.scalars(select(Job.id).where(Job.parent_id == id)).all()

    def _hold_parts(self, *ids: str) -> Sequence[Job]:
        """The points of a sweep, the parts of jobs, held until the transaction ends."""
        return self._session.scalars(_locking(select(Job).where(Job.parent_id.in_(ids)).order_by(Job.id))).all()

    def _wait_for_parts(self, job: Job, now: datetime, stage: str | None) -> None:
        """Out of the reach of workers, until the last point or part ends; meanwhile that stage is in progress."""
        job.claimable_at = sweeps.WAITING
        if stage is not None:
            self._tell(job, now, [(EventType.STAGE, {"name": stage, "state": StageState.RUNNING})])
        self._session.flush()

    def _tell_parent(self, part: Job, parent_id: str) -> None:
        """That a point of a sweep or a part of a job has ended; with the last one workers may take it again."""
        taken = self._take(Job.id == parent_id, Job.state == JobState.QUEUED)
        if taken is None:
            return
        parent, now = taken
        states = self._session.scalars(select(Job.state).where(Job.parent_id == parent_id)).all()
        ended = sum(state.ended for state in states)
        succeeded, of_sweep = part.state is JobState.SUCCEEDED, parent.kind == JobKind.SWEEP
        told: list[tuple[EventType, dict[str, Any]]] = []
        if of_sweep or not succeeded:
            level = "info" if succeeded else "warning"
            told.append((EventType.LOG, {"level": level, "message": f"{part.id} has {_ENDINGS[part.state]}"}))
        running = [
            each.name for each in stages.reconciled(parent.stages, parent.kind) if each.state is StageState.RUNNING
        ]
        for stage in [sweeps.POINTS] if of_sweep else running:
            told.append((EventType.PROGRESS, {"stage": stage, "progress": ended / len(states)}))
        if ended == len(states):
            if of_sweep:
                told.append((EventType.STAGE, {"name": sweeps.POINTS, "state": StageState.DONE}))
            parent.claimable_at = now
        self._tell(parent, now, told)
        self._session.flush()

    def _tell(self, job: Job, now: datetime, told: Sequence[tuple[EventType, Mapping[str, Any]]]) -> None:
        """Events of a job that is held, and what they make of its stages."""
        moved = stages.reconciled(job.stages, job.kind)
        for type, data in told:
            moved = stages.apply(moved, type, data, now)
            self._emit(job, now, type, data)
        self._set_stages(job, moved)

    def _count_use(self, job: Job, now: datetime) -> None:
        """Of an attempt that ends, if one was in progress."""
        if job.state in HELD and job.started_at is not None:
            job.used_s += (now - job.started_at).total_seconds()

    def _reject_input(self, job: Job, error: JobError) -> bool:
        """So that nothing stays `inspecting` when its inspection is over; true if something would have."""
        rejection = Rejection(code=error.code, message=error.message, hint=error.hint).model_dump(mode="json")
        models, datasets = ModelRepository(self._session), DatasetRepository(self._session)
        rejected_model = job.model_id is not None and models.mark_rejected(job.model_id, rejection)
        rejected_dataset = job.dataset_id is not None and datasets.mark_rejected(job.dataset_id, rejection)
        return rejected_model or rejected_dataset

    def _reconcile_stages(self, job: Job) -> None:
        found = stages.reconciled(job.stages, job.kind)
        if stages.dump(found) != job.stages:
            self._set_stages(job, found)

    def _set_stages(self, job: Job, moved: Sequence[Stage]) -> None:
        job.stages = stages.dump(moved)
        job.progress = stages.progress(moved)

    def _emit_state(self, job: Job, now: datetime, error: JobError | None = None) -> None:
        data: dict[str, Any] = {"state": job.state, "attempt": job.attempt}
        if error is not None:
            data["error"] = error.model_dump(mode="json")
        self._emit(job, now, EventType.STATE, data)
        outbox.job_changed(self._session, job, now)

    def _emit(self, job: Job, now: datetime, type: EventType, data: Mapping[str, Any]) -> None:
        """Number the event. The row is held, so numbers have no gaps and become visible in order."""
        job.event_seq += 1
        self._session.add(
            JobEvent(job_id=job.id, seq=job.event_seq, type=type, at=now, attempt=job.attempt, data=dict(data))
        )


def _fence(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        Job.id == claim.job_id,
        Job.attempt == claim.attempt,
        Job.worker == claim.worker,
        Job.state.in_(HELD),
    )


def _lost(claim: Claim) -> str:
    return f"attempt {claim.attempt} of {claim.job_id} is no longer {claim.worker}'s"


def _locking(query: Select[*Columns], skip_locked: bool = False) -> Select[*Columns]:
    return query.with_for_update(of=Job, skip_locked=skip_locked).execution_options(populate_existing=True)
