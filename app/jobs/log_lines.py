"""A job's events as lines of text: what `/logs` answers."""

import re
from collections.abc import Iterator

from models_store.database import Database
from models_store.documents.event import Event, EventType
from models_store.jobs import JobRepository

BATCH = 500
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Names that strangers chose stand in messages: they neither begin a line nor steer a terminal."""


def read(database: Database, job_id: str) -> Iterator[bytes]:
    """All but progress, in order, a line each; no transaction is open between two batches."""
    after_seq = 0
    while True:
        with database.session(read_only=True) as session:
            rows = JobRepository(session).events(job_id, after_seq, BATCH)
            events = [Event.model_validate(row, from_attributes=True) for row in rows]
        yield "".join(line(event) for event in events if event.type is not EventType.PROGRESS).encode()
        if len(events) < BATCH:
            return
        after_seq = events[-1].seq


def line(event: Event) -> str:
    """Such as `2026-11-23T08:00:00.123Z 1 stage finetune: running`; the number is the attempt's."""
    at = f"{event.at:%Y-%m-%dT%H:%M:%S}.{event.at.microsecond // 1000:03}Z"
    return f"{at} {event.attempt} {event.type} {CONTROL.sub(_visible, _text(event))}\n"


def _text(event: Event) -> str:
    data = event.data
    match event.type:
        case EventType.STATE:
            error = data.get("error")
            return f"{data['state']}: {error['code']}: {error['message']}" if error else str(data["state"])
        case EventType.STAGE:
            message = data.get("message")
            return f"{data['name']}: {data['state']}{f' ({message})' if message else ''}"
        case EventType.LOG:
            return f"{data['level']}: {data['message']}"
    values = ", ".join(f"{name} {value}" for name, value in data.items() if name != "stage")
    return f"{data.get('stage', '')}: {values}"


def _visible(control: re.Match[str]) -> str:
    return control[0].encode("unicode_escape").decode()
