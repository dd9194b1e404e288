"""A job's events as a server-sent stream: what is stored first, then what comes, to the job's end."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool

from models_store.database import Database
from models_store.documents.event import Event
from models_store.jobs import JobRepository

log = logging.getLogger(__name__)

BATCH = 500
WITHOUT_DATABASE_S = 1.0
KEEPALIVE_S = 15.0
RECONNECT_MS = 1000


def read_batch(database: Database, job_id: str, after_seq: int) -> tuple[list[Event], bool]:
    """The next events, at most BATCH of them, and whether any may follow."""
    with database.session(read_only=True) as session:
        jobs = JobRepository(session)
        job = jobs.get(job_id)  # read before its events: what ended by then has all of them
        rows = jobs.events(job_id, after_seq, BATCH)
        events = [Event.model_validate(row, from_attributes=True) for row in rows]
    ended = job is None or job.state.ended
    return events, len(events) == BATCH or not ended


async def stream(database: Database, job_id: str, after_seq: int, poll_s: float) -> AsyncIterator[bytes]:
    """Server-sent events with `id` = their number, until the job has ended and all were sent.

    Reads the table every `poll_s` seconds off the event loop; no transaction is open in between.
    """
    yield format_sse_event(retry=RECONNECT_MS)
    sent_at = time.monotonic()
    while True:
        try:
            events, more = await run_in_threadpool(read_batch, database, job_id, after_seq)
        except OperationalError as error:  # it goes on when the database is back: a browser would not ask again
            log.warning("%s: events wait for the database: %s", job_id, error.orig)
            events, more = [], True
            await asyncio.sleep(WITHOUT_DATABASE_S)
        for event in events:
            after_seq = event.seq
            # ASCII, because some clients take U+2028 and its like for ends of lines.
            data = event.model_dump_json(ensure_ascii=True)
            yield format_sse_event(data_str=data, event=event.type, id=str(event.seq))
        if not more:
            return
        now = time.monotonic()
        if events:
            sent_at = now
        elif now - sent_at > KEEPALIVE_S:
            sent_at = now
            yield KEEPALIVE_COMMENT
        if len(events) < BATCH:
            await asyncio.sleep(poll_s)
