"""How much there is of what, over all projects: for whoever runs the service."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models_store.database_time import database_now
from models_store.documents.job import JobState
from models_store.documents.webhook import DeliveryState
from models_store.tables import Job, WebhookDelivery


@dataclass(frozen=True)
class Waiting:
    """What waits: how many, and for how long the first of them has."""

    count: int
    oldest_s: float


@dataclass(frozen=True)
class Census:
    """At one moment."""

    jobs: dict[tuple[str, str], int]  # by state and kind
    queue: Waiting
    deliveries: Waiting


def take(session: Session) -> Census:
    """Three queries, each along an index but for the count of jobs."""
    jobs = session.execute(select(Job.state, Job.kind, func.count()).group_by(Job.state, Job.kind)).all()
    now = session.execute(select(database_now())).scalar_one()
    claimable = Job.state == JobState.QUEUED, Job.claimable_at <= database_now()
    queued, first = session.execute(select(func.count(), func.min(Job.claimable_at)).where(*claimable)).one()
    due = WebhookDelivery.state == DeliveryState.PENDING
    pending, due_at = session.execute(select(func.count(), func.min(WebhookDelivery.due_at)).where(due)).one()
    return Census(
        jobs={(state, kind): count for state, kind, count in jobs},
        queue=Waiting(queued, max(0.0, (now - first).total_seconds()) if first else 0.0),
        deliveries=Waiting(pending, max(0.0, (now - due_at).total_seconds()) if due_at else 0.0),
    )
