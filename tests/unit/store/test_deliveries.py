"""Which delivery is sent next: nobody waits for the receiver of another."""

import pytest

from models_store.database import Database
from models_store.documents.webhook import Happening
from models_store.projects import DEFAULT_PROJECT, ProjectRepository
from models_store.webhooks import Outcome, Sending, WebhookRepository


def endpoints(database: Database, project_id: str, **news: int) -> None:
    """Endpoints by name, each with so many deliveries that are due."""
    with database.of_project(project_id).session() as session:
        webhooks = WebhookRepository(session)
        for name, count in news.items():
            endpoint = webhooks.add(f"https://{name}.example", (), "")
            for _ in range(count):
                webhooks.tell_one(endpoint, Happening.WEBHOOK_TEST, webhooks.now(), {})


def claim(database: Database) -> Sending | None:
    with database.session() as session:
        return WebhookRepository(session).claim()


def names(claimed: list[Sending | None]) -> list[str | None]:
    return [each and each.url.removeprefix("https://").partition(".")[0] for each in claimed]


def any_due(database: Database) -> bool:
    with database.session(read_only=True) as session:
        return WebhookRepository(session).any_due()


@pytest.mark.parametrize("outcome", [Outcome(1, error="no answer"), Outcome(1, status=204)])
def test_an_endpoint_has_one_attempt_in_flight(database: Database, outcome: Outcome) -> None:
    endpoints(database, DEFAULT_PROJECT, dead=3)
    endpoints(database, DEFAULT_PROJECT, fine=1)
    claimed = [claim(database) for _ in range(3)]
    assert names(claimed) == ["dead", "fine", None]
    assert not any_due(database)
    with database.session() as session:
        WebhookRepository(session).record(claimed[0], outcome)
    assert any_due(database)
    assert names([claim(database) for _ in range(2)]) == ["dead", None]


def test_projects_take_turns(database: Database) -> None:
    with database.session() as session:
        other = ProjectRepository(session).add("other").id
    endpoints(database, other, a=2, b=2, c=2)
    endpoints(database, DEFAULT_PROJECT, fine=1)
    assert names([claim(database) for _ in range(5)]) == ["a", "fine", "b", "c", None]


def test_a_claim_that_is_not_committed_yet_counts(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    endpoints(database, DEFAULT_PROJECT, dead=2)
    with database.session() as session:
        assert WebhookRepository(session).claim() is not None
        assert claim(database) is None
        endpoints(database, DEFAULT_PROJECT, fine=1)  # waits for nobody
        assert names([claim(database)]) == ["fine"]
    database.dispose()
