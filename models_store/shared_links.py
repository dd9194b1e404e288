"""Links that open one file of one job without an API key, until they expire.

The signature is an HMAC-SHA-256, by a secret of the project, over job, file, end, and the key that made the link.
A link does no more than that key: it ends with it, and with the project.
"""

import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.database_time import database_now
from models_store.documents.access import Scope
from models_store.errors import LinkExpired, LinkForged, LinkRevoked
from models_store.tables import ApiKey, Job, Project

PREFIX = "/v1/shared"
HTML_REPORT = "report.html"
PURPOSE = "espalier shared link 1"
"""Part of what is signed, so that the secret may sign other things one day."""


@dataclass(frozen=True)
class SharedLink:
    """What a link opens, and until when."""

    job_id: str
    name: str
    expires: int
    """Seconds since 1970, UTC."""
    key_id: str = ""
    """Of the key that made it; empty where nobody was asked for one, and in links of a pipeline."""

    def signature(self, secret: str) -> str:
        """64 hexadecimal digits."""
        signed = "\0".join((PURPOSE, self.job_id, self.name, str(self.expires), self.key_id))
        return hmac.new(bytes.fromhex(secret), signed.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def path(self, secret: str) -> str:
        """Path and query."""
        by = {"key": self.key_id} if self.key_id else {}
        query = urlencode({"expires": str(self.expires), **by, "signature": self.signature(secret)})
        return f"{shared_path(self.job_id, self.name)}?{query}"


def shared_path(job_id: str, name: str) -> str:
    """Of a link, without what lets it open."""
    return f"{PREFIX}/{job_id}/{quote(name, safe='')}"


class SharedLinkRepository:
    """Signing in a session that sees the job's project, checking in one that sees all. Never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def sign(self, job_id: str, name: str, seconds: int, key_id: str = "") -> tuple[SharedLink, str]:
        """A link that is good for so long, and its path."""
        project_id = self._session.scalars(select(Job.project_id).where(Job.id == job_id)).one()
        now = self._session.execute(select(database_now())).scalar_one()
        link = SharedLink(job_id, name, int(now.timestamp()) + seconds, key_id)
        return link, link.path(self._session.get_one(Project, project_id).link_secret)

    def check(self, link: SharedLink, signature: str) -> str:
        """The id of the project whose file it opens. Raises LinkForged, LinkExpired, LinkRevoked."""
        query = select(Project, database_now()).join(Job, Job.project_id == Project.id).where(Job.id == link.job_id)
        found = self._session.execute(query).one_or_none()
        if found is None:
            raise LinkForged("nothing was signed so")
        project, now = found
        right = link.signature(project.link_secret)
        if not hmac.compare_digest(right.encode(), signature.encode("utf-8", "surrogatepass")):
            raise LinkForged("nothing was signed so")
        if link.expires <= now.timestamp():
            raise LinkExpired("its time is over")
        if not project.enabled:
            raise LinkRevoked("its project is disabled")
        if link.key_id and not self._may_read(link.key_id, project.id):
            raise LinkRevoked("the key that made it is no longer valid")
        return str(project.id)

    def _may_read(self, key_id: str, project_id: str) -> bool:
        query = select(ApiKey.scopes).where(
            ApiKey.id == key_id,
            ApiKey.project_id == project_id,
            ApiKey.revoked_at.is_(None),
            ApiKey.expires_at.is_(None) | (ApiKey.expires_at > database_now()),
        )
        scopes = self._session.scalar(query)
        return scopes is not None and Scope.READ in scopes
