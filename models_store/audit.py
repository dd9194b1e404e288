"""The audit log: who changed what, when and from where, written in the transaction of the change; and who was refused.

A session knows on whose behalf it works (`session.info`), so that whoever writes in it can say so without being told.
Entries are added and read, and never changed or deleted: `confinement` refuses both.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.identifiers import first_id, new_id
from models_store.spans import ALWAYS, Span
from models_store.tables import AuditEntry

BY = "by"
"""What a session's `info` has the actor under."""
ADDRESS_CHARACTERS = 100
REFUSED = "refused_"
"""What the action of an entry begins with that tells of somebody who was not let in."""
REFUSALS_PER_DAY = 100
DAY_S = 24 * 3600.0
RESOURCE_CHARACTERS = 300
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Actor:
    """On whose behalf a session writes: the key (None: nobody was asked for one), the operation, the address."""

    key_id: str | None
    action: str
    address: str


class AuditRepository:
    """All SQL on the audit log, in a session of one project. Never commits: the caller's session does."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record(self, resource: str, project_id: str | None = None) -> None:
        """That the session's actor has changed what is under the path `resource`.

        Control characters become %NN: anybody may ask for such a path, and PostgreSQL stores no NUL.

        `project_id`: in whose log, where the session is not of one project.
        """
        actor: Actor = self._session.info[BY]
        entry = AuditEntry(
            id=new_id("aud"),
            key_id=actor.key_id,
            action=actor.action,
            resource=_CONTROL.sub(lambda found: quote(found[0]), resource)[:RESOURCE_CHARACTERS],
            address=actor.address[:ADDRESS_CHARACTERS],
        )
        if project_id is not None:
            entry.project_id = project_id
        self._session.add(entry)
        self._session.flush()

    def record_refusal(self, resource: str) -> bool:
        """That the session's actor was not let in; false where the day's log has enough of such.

        Anybody can be refused as often as they like: REFUSALS_PER_DAY of a project are kept, and no more.
        """
        yesterday = first_id("aud", time.time() - DAY_S)
        refused = select(AuditEntry.id).where(
            AuditEntry.id >= yesterday, AuditEntry.action.startswith(REFUSED, autoescape=True)
        )
        newest = self._session.scalars(refused.limit(REFUSALS_PER_DAY)).all()
        if len(newest) >= REFUSALS_PER_DAY:
            return False
        self.record(resource)
        return True

    def list(
        self,
        after: str | None = None,
        limit: int = 50,
        key_id: str | None = None,
        action: str | None = None,
        resource: str | None = None,
        span: Span = ALWAYS,
    ) -> Sequence[AuditEntry]:
        """Newest first; `after` is the id of the last row of the page before, `resource` the beginning of a path."""
        query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
        if after is not None:
            query = query.where(AuditEntry.id < after)
        if key_id is not None:
            query = query.where(AuditEntry.key_id == key_id)
        if action is not None:
            query = query.where(AuditEntry.action == action)
        if resource is not None:
            query = query.where(AuditEntry.resource.startswith(resource, autoescape=True))
        return self._session.scalars(query.where(*span.holds(AuditEntry.at))).all()
