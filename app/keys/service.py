"""What happens to keys: made, rotated, revoked."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.errors import ApiError
from app.keys.schemas import NewKey
from models_store.api_keys import ApiKeyRepository
from models_store.documents.access import Scope
from models_store.tables import ApiKey

KEY_ID = re.compile(r"key_[0-9a-f]{32}")


class KeyNotFound(ApiError):
    """There is no such key."""

    status = HTTPStatus.NOT_FOUND
    code = "key_not_found"
    hint = "GET /v1/keys lists the keys with their ids."


class AlreadyOver(ApiError):
    """The key would have expired before it was made."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "already_expired"
    hint = "Choose a time in the future, or leave `expires_at` out."


class KeyIsRevoked(ApiError):
    """The key has been revoked."""

    status = HTTPStatus.CONFLICT
    code = "key_is_revoked"
    hint = "Make a new one with POST /v1/keys."


def create(session: Session, new: NewKey, caller: Caller) -> tuple[ApiKey, str]:
    """A key of the session's project, and its text. Raises AlreadyOver, ScopeMissing."""
    _may_handle(caller, new.scopes)
    if new.expires_at is not None and new.expires_at <= datetime.now(UTC):
        raise AlreadyOver(f"{new.expires_at.isoformat()} has passed.")
    return ApiKeyRepository(session).add(new.name, new.scopes, new.expires_at)


def page(session: Session, after: str | None, limit: int) -> Sequence[ApiKey]:
    return ApiKeyRepository(session).list(after, limit)


def get(session: Session, key_id: str) -> ApiKey:
    """Raises KeyNotFound."""
    key = ApiKeyRepository(session).get(key_id) if KEY_ID.fullmatch(key_id) else None
    if key is None:
        raise KeyNotFound(f"There is no key {key_id}.")
    return key


def rotate(session: Session, key_id: str, grace_s: float, caller: Caller) -> tuple[ApiKey, str]:
    """The key and its new text. Raises KeyNotFound, KeyIsRevoked, ScopeMissing."""
    key = get(session, key_id)
    _may_handle(caller, key.scopes)
    if key.revoked_at is not None:
        raise KeyIsRevoked(f"{key_id} was revoked at {key.revoked_at:%Y-%m-%d %H:%M} UTC.")
    return key, ApiKeyRepository(session).rotate(key, grace_s)


def revoke(session: Session, key_id: str, caller: Caller) -> None:
    """Raises KeyNotFound, ScopeMissing."""
    key = get(session, key_id)
    _may_handle(caller, key.scopes)
    ApiKeyRepository(session).revoke(key)


def _may_handle(caller: Caller, scopes: Sequence[str] | frozenset[Scope]) -> None:
    """An admin of one project gets no power over others by a key that has it."""
    if Scope.INSTANCE in scopes:
        caller.require(Scope.INSTANCE)
