"""Requests that create: with an Idempotency-Key, what is sent twice happens once."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Protocol

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.dependencies import Caller, CallerDep, Plane, PlaneDep
from app.errors import ApiError
from models_store.audit import AuditRepository
from models_store.errors import KeyInFlight, KeyReused
from models_store.idempotency import LOCK_S, Answer, IdempotencyRepository

REPLAYED = "Idempotency-Replayed"

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your own, such as a UUID. The same request sent again with the same key within a day "
        "is answered as the first was and creates nothing.",
    ),
]


class IdempotencyKeyReused(ApiError):
    """The Idempotency-Key belongs to another request."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "idempotency_key_reused"
    hint = "Choose a new key for a new request; repeat the same body to see the first answer again."


class IdempotencyKeyInFlight(ApiError):
    """The first request with this Idempotency-Key has not been answered yet."""

    status = HTTPStatus.CONFLICT
    code = "idempotency_key_in_flight"
    hint = "Wait as long as Retry-After says, then send the same request again."


IDEMPOTENCY_ERRORS = (IdempotencyKeyReused, IdempotencyKeyInFlight)


class Created(Protocol):
    """What an answer says about a new thing."""

    def model_dump_json(self, *, exclude: set[str]) -> str: ...


@dataclass(frozen=True)
class Creation:
    """One request that creates something: its transaction, and its answer."""

    plane: Plane
    caller: Caller
    request: Request
    key: str | None

    def once(
        self,
        body: BaseModel | Mapping[str, Any],
        create: Callable[[Session], tuple[Created, str]],
        status: HTTPStatus = HTTPStatus.CREATED,
        *,
        not_kept: frozenset[str] = frozenset(),
    ) -> Response:
        """The answer to the request: what `create` made, and where it is, in a transaction that is then committed.

        `create` is not called where an earlier request with this key and body made it already. `body` is all that
        tells this request from another one; `not_kept` names fields of the answer that must not be stored, and that the
        answer to a repetition lacks. Raises IdempotencyKeyReused, IdempotencyKeyInFlight.
        """
        if self.key is None:
            with self.plane.database.session() as session:
                view, location = create(session)
                AuditRepository(session).record(location)
            return _answer(_made(view, location, status))
        claimed = self._claim(self.key, _fingerprint(self.request, body))
        if isinstance(claimed, Answer):
            return _replayed(claimed)
        try:
            with self.plane.database.session() as session:
                view, location = create(session)
                AuditRepository(session).record(location)
                self._keys(session).complete(self.key, claimed, _made(view, location, status, not_kept))
            return _answer(_made(view, location, status))
        except KeyInFlight as error:
            raise _in_flight(error) from error
        except BaseException:
            with suppress(OperationalError), self.plane.database.session() as session:
                self._keys(session).release(self.key, claimed)
            raise

    def earlier_answer(self, body: BaseModel | Mapping[str, Any]) -> Response | None:
        """What `once` would answer without creating anything: to be asked before what is created is paid for.

        Raises IdempotencyKeyReused.
        """
        if self.key is None:
            return None
        try:
            with self.plane.database.session(read_only=True) as session:
                found = self._keys(session).answered(self.key, _fingerprint(self.request, body))
        except KeyReused as error:
            raise IdempotencyKeyReused(f"{error}.") from error
        return _replayed(found) if found is not None else None

    def _claim(self, key: str, fingerprint: str) -> str | Answer:
        try:
            with self.plane.database.session() as session:
                return self._keys(session).claim(key, fingerprint)
        except KeyReused as error:
            raise IdempotencyKeyReused(f"{error}.") from error
        except KeyInFlight as error:
            raise _in_flight(error) from error

    def _keys(self, session: Session) -> IdempotencyRepository:
        return IdempotencyRepository(session)


async def _creation(request: Request, plane: PlaneDep, caller: CallerDep, key: Key = None) -> Creation:
    return Creation(plane, caller, request, key)


CreationDep = Annotated[Creation, Depends(_creation)]


def _fingerprint(request: Request, body: BaseModel | Mapping[str, Any]) -> str:
    document = body.model_dump(mode="json") if isinstance(body, BaseModel) else body
    identity = [request.method, request.url.path, document]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _made(view: Created, location: str, status: HTTPStatus, not_kept: frozenset[str] = frozenset()) -> Answer:
    return Answer(status, location, view.model_dump_json(exclude=set(not_kept)))


def _answer(answer: Answer, headers: Mapping[str, str] | None = None) -> Response:
    location = {"Location": answer.location} if answer.location else {}
    return Response(answer.body, answer.status, {**location, **(headers or {})}, media_type="application/json")


def _replayed(answer: Answer) -> Response:
    return _answer(answer, {REPLAYED: "true"})


def _in_flight(error: KeyInFlight) -> IdempotencyKeyInFlight:
    return IdempotencyKeyInFlight(f"{error}.", headers={"Retry-After": str(max(1, int(LOCK_S / 60)))})
