"""Keys, projects, limits and the log of changes: who may do what, and who did it."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Unpack
from urllib.parse import quote

from espalier.client import exchange
from espalier.client.asynchronous.wire import Filter, Wire
from espalier.client.changes import ProjectChange
from espalier.resources import ApiKey, Change, Project, Readiness, Usage
from models_store.documents.access import Scope


class AsyncAdministration:
    """The part of the client that asks for these."""

    _wire: Wire

    # Keys

    async def create_key(
        self, name: str, scopes: Sequence[Scope] = (Scope.READ, Scope.WRITE), expires_at: datetime | None = None
    ) -> ApiKey:
        """A key of the same project. The answer alone has its text, `key`."""
        return await self._new_key("/v1/keys", name, scopes, expires_at)

    def api_keys(self) -> AsyncIterator[ApiKey]:
        """Every key of the project, newest first."""
        return self._wire.pages("/v1/keys", ApiKey)

    async def get_key(self, key_id: str) -> ApiKey:
        return await self._wire.get(f"/v1/keys/{quote(key_id)}", ApiKey)

    async def rotate_key(self, key_id: str, grace_s: int) -> ApiKey:
        """Give a key a new secret; the old one stays valid for `grace_s` seconds."""
        path = f"/v1/keys/{quote(key_id)}/rotate"
        request = self._wire.request("POST", path, json={"grace_s": grace_s}, headers=exchange.once())
        return await self._wire.ask(request, ApiKey)

    async def revoke_key(self, key_id: str) -> None:
        """Have a key refused from now on."""
        await self._wire.send(self._wire.request("DELETE", f"/v1/keys/{quote(key_id)}"))

    async def _new_key(self, path: str, name: str, scopes: Sequence[Scope], expires_at: datetime | None) -> ApiKey:
        body: dict[str, Any] = {"name": name, "scopes": list(scopes)}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        return await self._wire.ask(self._wire.request("POST", path, json=body, headers=exchange.once()), ApiKey)

    # Projects: for whoever runs the service

    async def create_project(self, name: str) -> Project:
        """Somebody who shares nothing with others; it needs a key next."""
        request = self._wire.request("POST", "/v1/projects", json={"name": name}, headers=exchange.once())
        return await self._wire.ask(request, Project)

    def projects(self) -> AsyncIterator[Project]:
        """Every project, newest first."""
        return self._wire.pages("/v1/projects", Project)

    async def get_project(self, project_id: str) -> Project:
        return await self._wire.get(f"/v1/projects/{quote(project_id)}", Project)

    async def change_project(self, project_id: str, **change: Unpack[ProjectChange]) -> Project:
        """Its name, its limits, and whether its keys are accepted."""
        path = f"/v1/projects/{quote(project_id)}"
        return await self._wire.ask(self._wire.request("PATCH", path, json=change), Project)

    async def create_project_key(
        self,
        project_id: str,
        name: str,
        scopes: Sequence[Scope] = (Scope.READ, Scope.WRITE, Scope.ADMIN),
        expires_at: datetime | None = None,
    ) -> ApiKey:
        """A key of another project. The answer alone has its text, `key`."""
        return await self._new_key(f"/v1/projects/{quote(project_id)}/keys", name, scopes, expires_at)

    # What is used, what was changed, and whether all is well

    async def usage(self) -> Usage:
        """What the project uses, and what it may."""
        return await self._wire.get("/v1/usage", Usage)

    def changes(self, **filters: Filter) -> AsyncIterator[Change]:
        """Who changed what, newest first; `filters` are the query parameters of /v1/audit."""
        return self._wire.pages("/v1/audit", Change, **filters)

    async def readiness(self) -> Readiness:
        """Whether the service has what it needs. Nothing is raised where it has not."""
        return Readiness.model_validate_json(await self._wire.read("/readyz", although=(503,)))
