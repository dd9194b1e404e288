"""What is forgotten after a while: all SQL on that, over all projects."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from sqlalchemy import Select, delete, exists, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from models_store.database_time import database_now
from models_store.documents.job import JobState
from models_store.documents.webhook import DeliveryState
from models_store.quotas import QuotaRepository
from models_store.tables import (
    Dataset,
    HookEvent,
    IdempotencyKey,
    Job,
    JobArtifact,
    JobEvent,
    Model,
    WebhookDelivery,
)

DAY_S = 24 * 3600.0
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)

# Every column that names a blob which others may share. Blobs of a scope have owners of their own.
BLOB_COLUMNS: tuple[InstrumentedAttribute[str] | InstrumentedAttribute[str | None], ...] = (
    Model.blob_key,
    Model.onnx_key,
    Dataset.blob_key,
    JobArtifact.blob_key,
)


@dataclass(frozen=True)
class Policy:
    """Days that things are kept; None: for ever. Of jobs, days after their end."""

    jobs: int | None = None  # with all that is theirs
    artifacts: int | None = None  # the files, not the report
    events: int | None = None  # progress and logs, not how it ended
    deliveries: int | None = None
    hook_events: int | None = None


def forget(session: Session, policy: Policy, limit: int = 1000) -> dict[str, int]:
    """Delete what is older than the policy has it, at most `limit` rows of each kind; how many of each."""
    keys = delete(IdempotencyKey).where(IdempotencyKey.expires_at < database_now())
    forgotten = {"idempotency_keys": len(session.scalars(keys.returning(IdempotencyKey.key)).all())}
    if policy.jobs is not None:
        forgotten["jobs"] = _forget_jobs(session, policy.jobs, limit)
    if policy.artifacts is not None:
        having = _ended(policy.artifacts).where(exists().where(JobArtifact.job_id == Job.id)).limit(limit)
        gone = delete(JobArtifact).where(JobArtifact.job_id.in_(having)).returning(JobArtifact.name)
        forgotten["artifacts"] = len(session.scalars(gone).all())
    if policy.events is not None:
        forgotten["events"] = _forget_events(session, policy.events, limit)
    if policy.deliveries is not None:
        old_news = select(WebhookDelivery.id).where(
            WebhookDelivery.state != DeliveryState.PENDING,
            WebhookDelivery.created_at < database_now(-policy.deliveries * DAY_S),
        )
        gone_news = delete(WebhookDelivery).where(WebhookDelivery.id.in_(old_news.limit(limit)))
        forgotten["deliveries"] = len(session.scalars(gone_news.returning(WebhookDelivery.id)).all())
    if policy.hook_events is not None:
        old_events = delete(HookEvent).where(HookEvent.created_at < database_now(-policy.hook_events * DAY_S))
        forgotten["hook_events"] = len(session.scalars(old_events.returning(HookEvent.key)).all())
    return {kind: count for kind, count in forgotten.items() if count}


def _ended(days: int) -> Select[str]:
    return select(Job.id).where(Job.state.in_(ENDED), Job.finished_at < database_now(-days * DAY_S))


def _forget_jobs(session: Session, days: int, limit: int) -> int:
    """The minutes that they used stay used: with less than a month of them, a quota would begin anew with each."""
    held = select(Job).where(Job.id.in_(_ended(days).limit(limit))).order_by(Job.project_id)
    jobs = session.scalars(held.with_for_update(skip_locked=True)).all()
    for _, of_project in groupby(jobs, key=attrgetter("project_id")):
        QuotaRepository(session).keep_minutes(list(of_project))
    session.execute(delete(Job).where(Job.id.in_([job.id for job in jobs])))
    return len(jobs)


def _forget_events(session: Session, days: int, limit: int) -> int:
    """All but a job's last one, which says how it ended, and ends its event stream."""
    rest = exists().where(JobEvent.job_id == Job.id, JobEvent.seq < Job.event_seq)
    jobs = session.execute(select(Job.id, Job.event_seq).where(Job.id.in_(_ended(days).where(rest).limit(limit)))).all()
    count = 0
    for job_id, last in jobs:
        gone = delete(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq < last).returning(JobEvent.seq)
        count += len(session.scalars(gone).all())
    return count


def named(session: Session, keys: Collection[str]) -> set[str]:
    """Those of the blob keys that some row names."""
    found: set[str] = set()
    for column in BLOB_COLUMNS:
        found.update(key for key in session.scalars(select(column).where(column.in_(keys))) if key is not None)
    return found
