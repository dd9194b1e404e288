"""Sends what the outbox holds, one delivery after the other, signed as Standard Webhooks demand."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from standardwebhooks import Webhook

from models_store import commit_status
from models_store.database import Database
from models_store.targets import Rules
from models_store.webhooks import WEBHOOK, Sending, WebhookRepository
from worker.post import post

USER_AGENT = "Espalier-Webhooks/1"


def deliver_all(database: Database, rules: Rules, stop: threading.Event) -> int:
    """Attempt every delivery that is due; how many were attempted."""
    attempted = 0
    while not stop.is_set():
        with database.session() as session:
            sending = WebhookRepository(session).claim()
        if sending is None:
            break
        outcome = post(sending.url, headers(sending, datetime.now(UTC)), sending.body.encode(), rules)
        with database.session() as session:
            WebhookRepository(session).record(sending, outcome)
        attempted += 1
    return attempted


def headers(sending: Sending, at: datetime) -> dict[str, str]:
    """Identifier, time of the attempt, and the signature over both and the body; or what a host of commits wants."""
    if sending.kind != WEBHOOK:
        return commit_status.headers(sending.kind, sending.secret)
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": sending.message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(sending.secret).sign(sending.message_id, at, sending.body),
    }
