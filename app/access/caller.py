"""Who sends a request: the holder of an API key, or anybody where the service asks for none."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import OperationalError

from app.access import refusals
from app.access.errors import KeyExpired, KeyInvalid, KeyMissing, KeyRevoked, ScopeMissing
from app.plane import Plane, WholePlane
from models_store import errors
from models_store.api_keys import ApiKeyRepository
from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
REALM = 'Bearer realm="espalier"'
REFUSALS = {errors.KeyUnknown: KeyInvalid, errors.KeyExpired: KeyExpired, errors.KeyRevoked: KeyRevoked}

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    bearerFormat="esp_<id>_<secret>",
    description="An API key, `esp_…`, made by POST /v1/keys or `espalier keys create`.",
)


@dataclass(frozen=True)
class Caller:
    """Whom a request speaks for."""

    project_id: str
    scopes: frozenset[Scope]
    key_id: str | None
    """None where the service asks for none."""

    def require(self, scope: Scope) -> None:
        """Raise ScopeMissing unless the caller has it."""
        if scope not in self.scopes:
            has = ", ".join(sorted(self.scopes)) or "none"
            raise ScopeMissing(
                f"This needs the scope {scope} ({scope.meaning}); the key has {has}.",
                headers={"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{scope}"'},
            )


def _caller(
    plane: WholePlane,
    request: Request,
    background: BackgroundTasks,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Raises KeyMissing, KeyInvalid, KeyExpired, KeyRevoked, RateLimited, TooManyRefusedKeys."""
    if not plane.settings.keyed:
        _count(plane, request.client.host if request.client else "")
        return Caller(DEFAULT_PROJECT, frozenset(Scope), None)
    if credentials is None:
        raise KeyMissing("The request carries no API key.", headers={"WWW-Authenticate": REALM})
    try:
        with plane.database.session(read_only=True) as session:
            holder = ApiKeyRepository(session).holder(credentials.credentials)
    except errors.KeyRefused as error:
        refusals.note(plane, request, error, REFUSALS[type(error)].code)
        challenge = {"WWW-Authenticate": f'{REALM}, error="invalid_token"'}
        raise REFUSALS[type(error)](f"The API key is refused: {error}.", headers=challenge) from error
    _count(plane, holder.key_id)
    if not holder.use_noted:
        background.add_task(_note_use, plane, holder.key_id)
    return Caller(holder.project_id, holder.scopes, holder.key_id)


CallerDep = Annotated[Caller, Depends(_caller)]


async def by_method(request: Request, caller: CallerDep) -> None:
    """Of most routes: reading needs the scope `read`, everything else `write`. Raises ScopeMissing."""
    caller.require(Scope.READ if request.method in READING_METHODS else Scope.WRITE)


def needs(scope: Scope) -> Callable[[CallerDep], Awaitable[None]]:
    """Of routes that need another scope, whatever the method."""

    async def require(caller: CallerDep) -> None:
        caller.require(scope)

    return require


def _count(plane: Plane, sender: str) -> None:
    if plane.rates is not None:
        plane.rates.count(sender)


def _note_use(plane: Plane, key_id: str) -> None:
    """After the answer, so that nobody waits for it; while the database is away, not at all."""
    with suppress(OperationalError), plane.database.session() as session:
        ApiKeyRepository(session).note_use(key_id)
