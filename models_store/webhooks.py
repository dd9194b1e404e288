"""Webhook endpoints and the outbox of what they are to be told.

A delivery's row is written in the transaction of the change that it tells, so neither happens without the other.
Sending comes later, as often as the schedule says: at least once, with one `message_id` by which the receiver can
tell a repetition.
"""

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from models_store.commit_status import Host
from models_store.database_time import database_now
from models_store.documents.webhook import DeliveryState, Happening, Notice
from models_store.identifiers import new_id
from models_store.spans import ALWAYS, Span
from models_store.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint

SCHEDULE_S = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Before the first attempt, the second, … (the example of the Standard Webhooks specification)."""

LEASE_S = 60.0  # longer than an attempt may take: a sender that died gives its delivery back
SECRET_BYTES = 32
ANSWER_CHARACTERS = 1000
GONE = 410
WEBHOOK = "webhook"


@dataclass(frozen=True)
class Sending:
    """A sender's right to one attempt."""

    delivery_id: str
    attempt: int
    message_id: str
    url: str
    secret: str
    body: str
    kind: str = "webhook"


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt; `status` None: there was no answer, and `error` says why."""

    took_ms: int
    status: int | None = None
    answer: str | None = None
    error: str | None = None

    @property
    def refused(self) -> bool:
        """By a host that says that this very request is wrong: it will not be right later."""
        return self.status is not None and 400 <= self.status < 500 and self.status not in (408, 425, 429)

    @property
    def taken(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookRepository:
    """All SQL on webhooks: endpoints in a session of one project, sending in one of all. Never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # Endpoints

    def add(self, url: str, happenings: Sequence[Happening], description: str) -> WebhookEndpoint:
        """A new endpoint with a secret of its own."""
        endpoint = WebhookEndpoint(
            id=new_id("whk"),
            url=url,
            happenings=[str(happening) for happening in happenings],
            description=description,
            secret="whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode(),
        )
        self._session.add(endpoint)
        self._session.flush()
        return endpoint

    def get(self, id: str) -> WebhookEndpoint | None:
        query = select(WebhookEndpoint).where(WebhookEndpoint.id == id, WebhookEndpoint.kind == WEBHOOK)
        return self._session.scalar(query)

    def list(
        self,
        after: str | None = None,
        limit: int = 50,
        enabled: bool | None = None,
        span: Span = ALWAYS,
    ) -> Sequence[WebhookEndpoint]:
        """Newest first; `after` is the id of the last row of the page before."""
        table = WebhookEndpoint
        query = select(table).where(table.kind == WEBHOOK).order_by(table.id.desc()).limit(limit)
        if after is not None:
            query = query.where(table.id < after)
        if enabled is not None:
            query = query.where(table.enabled == enabled)
        return self._session.scalars(query.where(*span.holds(table.created_at))).all()

    def delete(self, id: str) -> bool:
        """Delete the endpoint with its deliveries; whether there was one."""
        statement = delete(WebhookEndpoint).where(WebhookEndpoint.id == id)
        return self._session.scalar(statement.returning(WebhookEndpoint.id)) is not None

    # Hosts of repositories

    def add_host(self, kind: Host, base_url: str, token: str) -> WebhookEndpoint:
        """Where the status of commits is told; not among the webhooks of the project."""
        endpoint = WebhookEndpoint(
            id=new_id("whk"),
            url=base_url,
            happenings=[],
            description="",
            secret=token,
            kind=kind,
        )
        self._session.add(endpoint)
        self._session.flush()
        return endpoint

    def host(self, id: str) -> WebhookEndpoint | None:
        return self._session.get(WebhookEndpoint, id)

    def tell_status(self, endpoint_id: str, run_id: str, url: str, body: str) -> None:
        """A status in place of those of the same run that still wait."""
        self._session.execute(
            update(WebhookDelivery)
            .where(
                WebhookDelivery.endpoint_id == endpoint_id,
                WebhookDelivery.message_id == run_id,
                WebhookDelivery.state == DeliveryState.PENDING,
            )
            .values(state=DeliveryState.FAILED)
            .execution_options(synchronize_session="fetch")
        )
        self._session.add(
            WebhookDelivery(
                id=new_id("dlv"), endpoint_id=endpoint_id, message_id=run_id, happening="status", body=body, url=url
            )
        )
        self._session.flush()

    # The outbox

    def tell(self, project_id: str, happening: Happening, at: datetime, data: dict[str, Any]) -> None:
        """Write a delivery for every endpoint of the project that asked for such news."""
        query = select(WebhookEndpoint).where(
            WebhookEndpoint.project_id == project_id,
            WebhookEndpoint.enabled.is_(True),
            WebhookEndpoint.kind == WEBHOOK,
        )
        message_id = new_id("msg")
        for endpoint in self._session.scalars(query).all():
            if not endpoint.happenings or happening in endpoint.happenings:
                self._put(endpoint, happening, at, data, message_id)

    def tell_one(
        self, endpoint: WebhookEndpoint, happening: Happening, at: datetime, data: dict[str, Any]
    ) -> WebhookDelivery:
        """A delivery to one endpoint, whatever it asked for."""
        return self._put(endpoint, happening, at, data, new_id("msg"))

    def now(self) -> datetime:
        """The database's time."""
        return self._session.execute(select(database_now())).scalar_one()

    def redeliver(self, delivery: WebhookDelivery) -> WebhookDelivery:
        """A new delivery of the same message."""
        again = WebhookDelivery(
            id=new_id("dlv"),
            endpoint_id=delivery.endpoint_id,
            message_id=delivery.message_id,
            happening=delivery.happening,
            body=delivery.body,
        )
        self._session.add(again)
        self._session.flush()
        return again

    def delivery(self, endpoint_id: str, id: str) -> WebhookDelivery | None:
        query = select(WebhookDelivery).where(WebhookDelivery.id == id, WebhookDelivery.endpoint_id == endpoint_id)
        return self._session.scalar(query)

    def deliveries(
        self,
        endpoint_id: str,
        after: str | None = None,
        limit: int = 50,
        state: DeliveryState | None = None,
        happening: Happening | None = None,
        span: Span = ALWAYS,
    ) -> Sequence[WebhookDelivery]:
        """Newest first; `after` is the id of the last row of the page before."""
        table = WebhookDelivery
        query = select(table).where(table.endpoint_id == endpoint_id).order_by(table.id.desc()).limit(limit)
        if after is not None:
            query = query.where(table.id < after)
        if state is not None:
            query = query.where(table.state == state)
        if happening is not None:
            query = query.where(table.happening == str(happening))
        return self._session.scalars(query.where(*span.holds(table.created_at))).all()

    def attempts(self, delivery_id: str) -> Sequence[WebhookAttempt]:
        query = select(WebhookAttempt).where(WebhookAttempt.delivery_id == delivery_id)
        return self._session.scalars(query.order_by(WebhookAttempt.number)).all()

    # What senders do

    def any_due(self) -> bool:
        return self._session.scalar(_due()) is not None

    def claim(self) -> Sending | None:
        """The right to attempt the delivery that is first in line, or none. It lapses after LEASE_S.

        An endpoint with an attempt in flight waits for its end (two claims in the same instant may both begin one);
        of the others, it is the turn of the project with the fewest in flight, with what has waited longest. So a
        receiver that is down holds up nobody else.
        """
        first = _due(hold=True)
        statement = (
            update(WebhookDelivery)
            .where(WebhookDelivery.id == first.scalar_subquery(), WebhookDelivery.state == DeliveryState.PENDING)
            .values(attempts=WebhookDelivery.attempts + 1, due_at=database_now(LEASE_S))
            .returning(WebhookDelivery)
            .execution_options(populate_existing=True, synchronize_session=False)
        )
        delivery = self._session.scalar(statement)
        if delivery is None:
            return None
        endpoint = self._session.get_one(WebhookEndpoint, delivery.endpoint_id)
        return Sending(
            delivery_id=delivery.id,
            attempt=delivery.attempts,
            message_id=delivery.message_id,
            url=delivery.url or endpoint.url,
            secret=endpoint.secret,
            body=delivery.body,
            kind=endpoint.kind,
        )

    def record(self, sending: Sending, outcome: Outcome) -> None:
        """Log the attempt and decide what follows: an answer of 410 disables the endpoint.

        Nothing is written for an attempt whose lease lapsed and which another sender repeated.
        """
        query = select(WebhookDelivery).where(
            WebhookDelivery.id == sending.delivery_id, WebhookDelivery.attempts == sending.attempt
        )
        delivery = self._session.scalar(query.with_for_update().execution_options(populate_existing=True))
        if delivery is None:
            return
        self._session.add(
            WebhookAttempt(
                delivery_id=delivery.id,
                number=sending.attempt,
                took_ms=outcome.took_ms,
                status=outcome.status,
                error=outcome.error[:500] if outcome.error else None,
                answer=outcome.answer[:ANSWER_CHARACTERS] if outcome.answer else None,
            )
        )
        now = self.now()
        if outcome.taken:
            delivery.state = DeliveryState.DELIVERED
            delivery.delivered_at = now
        elif outcome.status == GONE and sending.kind == WEBHOOK:
            self.disable(self._session.get_one(WebhookEndpoint, delivery.endpoint_id), "It answered 410 Gone.")
        elif sending.attempt >= len(SCHEDULE_S) or (sending.kind != WEBHOOK and outcome.refused):
            delivery.state = DeliveryState.FAILED
        else:
            delivery.due_at = self._session.execute(select(database_now(SCHEDULE_S[sending.attempt]))).scalar_one()
        self._session.flush()

    def disable(self, endpoint: WebhookEndpoint, reason: str) -> None:
        """The receiver is not to be told any more: what waits has failed."""
        endpoint.enabled = False
        endpoint.disabled_reason = reason
        self._session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.state == DeliveryState.PENDING)
            .values(state=DeliveryState.FAILED)
            .execution_options(synchronize_session="fetch")
        )

    def _put(
        self, endpoint: WebhookEndpoint, happening: Happening, at: datetime, data: dict[str, Any], message_id: str
    ) -> WebhookDelivery:
        delivery = WebhookDelivery(
            id=new_id("dlv"),
            endpoint_id=endpoint.id,
            message_id=message_id,
            happening=str(happening),
            body=Notice(type=happening, timestamp=at, data=data).model_dump_json(ensure_ascii=True),
        )
        self._session.add(delivery)
        self._session.flush()
        return delivery


def _due(*, hold: bool = False) -> Select[str]:
    """The delivery that is first in line; with `hold` it and its endpoint are held until the transaction ends, and
    other senders pass both by.
    """
    waiting, endpoint = aliased(WebhookDelivery), WebhookEndpoint  # confinement does not reach an alias in a JOIN
    flying, busy = _in_flight(), aliased(WebhookEndpoint)
    at_work = (
        select(busy.project_id, func.count().label("attempts")).where(busy.id.in_(flying)).group_by(busy.project_id)
    ).subquery()
    query = (
        select(waiting.id)
        .join(endpoint, endpoint.id == waiting.endpoint_id)
        .outerjoin(at_work, at_work.c.project_id == endpoint.project_id)
        .where(waiting.state == DeliveryState.PENDING, waiting.due_at <= database_now(), endpoint.id.not_in(flying))
        .order_by(func.coalesce(at_work.c.attempts, 0), waiting.due_at)
        .limit(1)
    )
    return query.with_for_update(of=(waiting, endpoint), key_share=True, skip_locked=True) if hold else query


def _in_flight() -> Select[str]:
    """The endpoints with an attempt whose lease runs and of which nothing is recorded."""
    sent = aliased(WebhookDelivery)
    recorded = exists().where(WebhookAttempt.delivery_id == sent.id, WebhookAttempt.number == sent.attempts)
    now, lapsed = database_now(), database_now(LEASE_S)
    leased = (sent.state == DeliveryState.PENDING, sent.attempts > 0, sent.due_at > now, sent.due_at <= lapsed)
    return select(sent.endpoint_id).where(*leased, ~recorded)
