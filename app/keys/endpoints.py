"""/v1/keys."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Response
from sqlalchemy.orm import Session

from app.body_limit import BoundedRoute
from app.dependencies import CallerDep, ReadSession, WriteSession
from app.errors import BodyTooLarge, UnreadableBody, problems
from app.idempotency import IDEMPOTENCY_ERRORS, CreationDep
from app.keys import service
from app.keys.schemas import SHOWN_ONCE, KeyPage, KeyView, KeyWithText, NewKey, Rotation
from app.links import links
from app.pages import After, Limit

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=BoundedRoute)

KeyId = Annotated[str, Path(examples=["key_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])]
BODY_ERRORS = (UnreadableBody, BodyTooLarge)


@router.post(
    "",
    status_code=201,
    response_model=KeyWithText,
    summary="Make a key",
    responses=links(201, "key_id", "get_key", "rotate_key", "revoke_key")
    | problems(service.AlreadyOver, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
def create_key(new: NewKey, creation: CreationDep) -> Response:
    """Of the caller's project. Keep the `key`: it is shown once, and only a hash of it is stored."""

    def create(session: Session) -> tuple[KeyWithText, str]:
        key, text = service.create(session, new, creation.caller)
        return KeyWithText.with_text(key, text), f"/v1/keys/{key.id}"

    return creation.once(new, create, not_kept=SHOWN_ONCE)


@router.get("", summary="List keys")
def list_keys(session: ReadSession, limit: Limit = 50, after: After = None) -> KeyPage:
    """Newest first, a page at a time."""
    return KeyPage.of([KeyView.of(key) for key in service.page(session, after, limit + 1)], limit)


@router.get("/{key_id}", summary="Look at a key", responses=problems(service.KeyNotFound))
def get_key(key_id: KeyId, session: ReadSession) -> KeyView:
    """What it may do, when it was used last, and whether it still is valid."""
    return KeyView.of(service.get(session, key_id))


@router.post(
    "/{key_id}/rotate",
    response_model=KeyWithText,
    summary="Give a key a new secret",
    responses=problems(service.KeyNotFound, service.KeyIsRevoked, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
def rotate_key(key_id: KeyId, creation: CreationDep, rotation: Rotation | None = None) -> Response:
    """The old secret stays valid for `grace_s` seconds, a day if left out, so that it can be replaced without haste."""
    wanted = rotation or Rotation()

    def create(session: Session) -> tuple[KeyWithText, str]:
        key, text = service.rotate(session, key_id, wanted.grace_s, creation.caller)
        return KeyWithText.with_text(key, text), f"/v1/keys/{key.id}"

    return creation.once(wanted, create, HTTPStatus.OK, not_kept=SHOWN_ONCE)


@router.delete("/{key_id}", status_code=204, summary="Revoke a key", responses=problems(service.KeyNotFound))
def revoke_key(key_id: KeyId, session: WriteSession, caller: CallerDep) -> None:
    """Refused from now on; it stays in the list, for the record."""
    service.revoke(session, key_id, caller)
