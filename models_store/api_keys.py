"""API keys: `esp_<id>_<secret>`, of which the secret is shown once and only its hash is kept.

The secret has 256 random bits: nobody tries them all, however fast the hash is, so one SHA-256 does, and there is
nothing that salt or many rounds would add.
"""

import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from models_store.database_time import database_now
from models_store.documents.access import Scope
from models_store.errors import KeyExpired, KeyRevoked, KeyUnknown
from models_store.identifiers import new_id
from models_store.tables import ApiKey, Project

ALPHABET = string.ascii_letters + string.digits
SECRET_CHARACTERS = 43  # log2(62 ** 43) = 256.03 bits
FORM = re.compile(rf"esp_([0-9a-f]{{32}})_([A-Za-z0-9]{{{SECRET_CHARACTERS}}})")
GRACE_S = 24 * 3600.0
"""How long the old secret stays valid after a rotation, unless said otherwise."""
USE_NOTED_EVERY_S = 60.0


@dataclass(frozen=True)
class KeyHolder:
    """Whom a valid key speaks for."""

    key_id: str
    project_id: str
    scopes: frozenset[Scope]
    use_noted: bool
    """Lately: it need not be noted again."""


class ApiKeyRepository:
    """All SQL on keys; in a session of one project it knows of that project's only. Never commits."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self, name: str, scopes: Iterable[Scope], expires_at: datetime | None = None, project_id: str | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its whole text, which is not kept. Without `project_id`: of the session's project."""
        secret = _new_secret()
        key = ApiKey(
            id=new_id("key"),
            name=name,
            scopes=sorted(scopes, key=list(Scope).index),
            secret_hash=_hash(secret),
            expires_at=expires_at,
        )
        if project_id is not None:
            key.project_id = project_id
        self._session.add(key)
        self._session.flush()
        return key, _text(key, secret)

    def get(self, id: str) -> ApiKey | None:
        return self._session.get(ApiKey, id)

    def list(self, after: str | None = None, limit: int = 50) -> Sequence[ApiKey]:
        """Newest first; `after` is the id of the last row of the page before."""
        query = select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
        return self._session.scalars(query.where(ApiKey.id < after) if after is not None else query).all()

    def rotate(self, key: ApiKey, grace_s: float = GRACE_S) -> str:
        """A new text for the key; the one before it stays valid for `grace_s` seconds, any older one ends at once."""
        secret = _new_secret()
        key.previous_hash = key.secret_hash
        key.previous_expires_at = self._session.execute(select(database_now(grace_s))).scalar_one()
        key.secret_hash = _hash(secret)
        self._session.flush()
        return _text(key, secret)

    def revoke(self, key: ApiKey) -> None:
        """Refused from the commit on; the row stays, for the record. Twice does no harm."""
        if key.revoked_at is None:
            key.revoked_at = self._session.execute(select(database_now())).scalar_one()
            self._session.flush()

    def any_with(self, scope: Scope) -> bool:
        """Whether a key with this scope could be used now."""
        usable = select(ApiKey.scopes).where(
            ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), _unexpired())
        )
        return any(scope in scopes for scopes in self._session.scalars(usable))

    def holder(self, text: str) -> KeyHolder:
        """Whom a key as it was sent speaks for. Raises KeyUnknown, KeyExpired, KeyRevoked."""
        match = FORM.fullmatch(text)
        if match is None:
            raise KeyUnknown("it has not the form of a key")
        query = select(ApiKey, Project.enabled, database_now()).join(Project, Project.id == ApiKey.project_id)
        found = self._session.execute(query.where(ApiKey.id == f"key_{match[1]}")).one_or_none()
        if found is None:
            raise KeyUnknown("there is no such key")
        key, enabled, now = found
        whose = key.id, key.project_id
        sent = _hash(match[2])
        current = hmac.compare_digest(sent, key.secret_hash)
        previous = hmac.compare_digest(sent, key.previous_hash or "")
        if not current and not previous:
            raise KeyUnknown("there is no such key", *whose)
        if key.revoked_at is not None:
            raise KeyRevoked(f"{key.id} has been revoked", *whose)
        if not enabled:
            raise KeyRevoked(f"the project of {key.id} is disabled", *whose)
        if not current and (key.previous_expires_at is None or key.previous_expires_at <= now):
            raise KeyExpired(f"{key.id} was rotated, and the old secret is no longer valid", *whose)
        if key.expires_at is not None and key.expires_at <= now:
            raise KeyExpired(f"{key.id} expired at {key.expires_at:%Y-%m-%d %H:%M} UTC", *whose)
        noted = key.last_used_at is not None and (now - key.last_used_at).total_seconds() < USE_NOTED_EVERY_S
        return KeyHolder(key.id, key.project_id, frozenset(Scope(scope) for scope in key.scopes), noted)

    def note_use(self, id: str) -> None:
        """That the key is used now; enough every USE_NOTED_EVERY_S."""
        self._session.execute(update(ApiKey).where(ApiKey.id == id).values(last_used_at=database_now()))


def _unexpired() -> ColumnElement[bool]:
    return ApiKey.expires_at > database_now()


def _new_secret() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARACTERS))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _text(key: ApiKey, secret: str) -> str:
    return f"esp_{key.id.removeprefix('key_')}_{secret}"
