"""Idempotency keys: a request that is sent twice creates once, and is answered twice alike.

A request first claims its key in a transaction of its own, so that a second one sees it in flight; its answer is kept
in the transaction that creates. A crash in between leaves a claim that lapses, and nothing created.
"""

import secrets
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models_store.database_time import database_now
from models_store.errors import KeyInFlight, KeyReused
from models_store.tables import IdempotencyKey

LOCK_S = 60.0
KEPT_S = 24 * 3600.0


@dataclass(frozen=True)
class Answer:
    """What the first request was answered."""

    status: int
    location: str | None
    body: str


class IdempotencyRepository:
    """The keys of one project, in a session of its own. Never commits: the caller's session does."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def claim(self, key: str, fingerprint: str) -> str | Answer:
        """A token with which to complete the request, or the answer that it has had.

        Raises KeyReused where the key belongs to a request of another fingerprint, KeyInFlight where the same request
        is being worked on. Forgets keys older than KEPT_S.
        """
        self._session.execute(delete(IdempotencyKey).where(IdempotencyKey.expires_at < database_now()))
        token = secrets.token_hex(16)
        try:
            with self._session.begin_nested():
                self._session.add(
                    IdempotencyKey(
                        key=key,
                        fingerprint=fingerprint,
                        token=token,
                        locked_until=database_now(LOCK_S),
                        expires_at=database_now(KEPT_S),
                    )
                )
            return token
        except IntegrityError:
            taken = self._take_over(key, fingerprint, token)
        return self.claim(key, fingerprint) if taken is None else taken

    def answered(self, key: str, fingerprint: str | None = None) -> Answer | None:
        """What a request with this key has been answered, and a repetition will be.

        Raises KeyReused where the key belongs to a request of another fingerprint than the one given, answered or not.
        """
        query = select(IdempotencyKey).where(IdempotencyKey.key == key, IdempotencyKey.expires_at >= database_now())
        row = self._session.scalar(query)
        if row is None:
            return None
        if fingerprint is not None and row.fingerprint != fingerprint:
            raise KeyReused(_reused(key))
        return Answer(row.status, row.location, row.body or "") if row.status is not None else None

    def complete(self, key: str, token: str, answer: Answer) -> None:
        """Keep the answer. Raises KeyInFlight where the claim lapsed and another request has it."""
        statement = (
            update(IdempotencyKey)
            .where(IdempotencyKey.key == key, IdempotencyKey.token == token, IdempotencyKey.status.is_(None))
            .values(status=answer.status, location=answer.location, body=answer.body)
            .returning(IdempotencyKey.key)
        )
        if self._session.scalar(statement) is None:
            raise KeyInFlight(f"the key {key} was taken over by another request")

    def release(self, key: str, token: str) -> None:
        """Forget a request that created nothing, so that it may be sent again."""
        self._session.execute(
            delete(IdempotencyKey).where(
                IdempotencyKey.key == key, IdempotencyKey.token == token, IdempotencyKey.status.is_(None)
            )
        )

    def _take_over(self, key: str, fingerprint: str, token: str) -> str | Answer | None:
        """As `claim`; None where the key has been released meanwhile."""
        query = select(IdempotencyKey, IdempotencyKey.locked_until < database_now()).where(IdempotencyKey.key == key)
        found = self._session.execute(query.with_for_update().execution_options(populate_existing=True)).one_or_none()
        if found is None:
            return None
        row, lapsed = found
        if row.fingerprint != fingerprint:
            raise KeyReused(_reused(key))
        if row.status is not None:
            return Answer(row.status, row.location, row.body or "")
        if not lapsed:
            raise KeyInFlight(f"the request with the key {key} is being worked on")
        self._session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.key == key)
            .values(token=token, locked_until=database_now(LOCK_S))
        )
        return token


def _reused(key: str) -> str:
    return f"the key {key} belongs to another request"
