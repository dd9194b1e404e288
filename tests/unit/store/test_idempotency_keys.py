"""Idempotency keys that are released while another request asks for them."""

from collections.abc import Iterator

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from models_store.database import Database
from models_store.idempotency import IdempotencyRepository
from models_store.projects import DEFAULT_PROJECT


@pytest.fixture
def confined(postgresql_url: str) -> Iterator[Database]:
    """On PostgreSQL alone: on SQLite nobody releases a key while another request writes."""
    database = Database(postgresql_url)
    yield database.of_project(DEFAULT_PROJECT)
    database.dispose()


def test_a_key_that_is_released_between_two_looks_at_it_is_claimed(confined: Database) -> None:
    with confined.session() as session:
        first = IdempotencyRepository(session).claim("k", "fingerprint")
    assert isinstance(first, str)
    with confined.session() as session:

        def release(of: Session, _: SessionTransaction) -> None:
            with confined.session() as other:
                IdempotencyRepository(other).release("k", first)

        event.listen(session, "after_soft_rollback", release, once=True)  # the key is taken: its own row was refused
        second = IdempotencyRepository(session).claim("k", "fingerprint")
    assert isinstance(second, str)
    assert second != first
    with confined.session(read_only=True) as session:
        assert IdempotencyRepository(session).answered("k", "fingerprint") is None
