# Made by `make client` from espalier/client/asynchronous/administration.py: change that file, not this one.
"""Keys, projects, limits and the log of changes: who may do what, and who did it."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Unpack
from urllib.parse import quote

from espalier.client import exchange
from espalier.client.changes import ProjectChange
from espalier.client.synchronous.wire import Filter, Wire
from espalier.resources import ApiKey, Change, Project, Readiness, Usage
from models_store.documents.access import Scope


class Administration:
    """The part of the client that asks for these."""

    _wire: Wire

    # Keys

    def create_key(
        self, name: str, scopes: Sequence[Scope] = (Scope.READ, Scope.WRITE), expires_at: datetime | None = None
    ) -> ApiKey:
        """A key of the same project. The answer alone has its text, `key`."""
        return self._new_key("/v1/keys", name, scopes, expires_at)

    def api_keys(self) -> Iterator[ApiKey]:
        """Every key of the project, newest first."""
        return self._wire.pages("/v1/keys", ApiKey)

    def get_key(self, key_id: str) -> ApiKey:
        return self._wire.get(f"/v1/keys/{quote(key_id)}", ApiKey)

    def rotate_key(self, key_id: str, grace_s: int) -> ApiKey:
        """Give a key a new secret; the old one stays valid for `grace_s` seconds."""
        path = f"/v1/keys/{quote(key_id)}/rotate"
        request = self._wire.request("POST", path, json={"grace_s": grace_s}, headers=exchange.once())
        return self._wire.ask(request, ApiKey)

    def revoke_key(self, key_id: str) -> None:
        """Have a key refused from now on."""
        self._wire.send(self._wire.request("DELETE", f"/v1/keys/{quote(key_id)}"))

    def _new_key(self, path: str, name: str, scopes: Sequence[Scope], expires_at: datetime | None) -> ApiKey:
        body: dict[str, Any] = {"name": name, "scopes": list(scopes)}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        return self._wire.ask(self._wire.request("POST", path, json=body, headers=exchange.once()), ApiKey)

    # Projects: for whoever runs the service

    def create_project(self, name: str) -> Project:
        """Somebody who shares nothing with others; it needs a key next."""
        request = self._wire.request("POST", "/v1/projects", json={"name": name}, headers=exchange.once())
        return self._wire.ask(request, Project)

    def projects(self) -> Iterator[Project]:
        """Every project, newest first."""
        return self._wire.pages("/v1/projects", Project)

    def get_project(self, project_id: str) -> Project:
        return self._wire.get(f"/v1/projects/{quote(project_id)}", Project)

    def change_project(self, project_id: str, **change: Unpack[ProjectChange]) -> Project:
        """Its name, its limits, and whether its keys are accepted."""
        path = f"/v1/projects/{quote(project_id)}"
        return self._wire.ask(self._wire.request("PATCH", path, json=change), Project)

    def create_project_key(
        self,
        project_id: str,
        name: str,
        scopes: Sequence[Scope] = (Scope.READ, Scope.WRITE, Scope.ADMIN),
        expires_at: datetime | None = None,
    ) -> ApiKey:
        """A key of another project. The answer alone has its text, `key`."""
        return self._new_key(f"/v1/projects/{quote(project_id)}/keys", name, scopes, expires_at)

    # What is used, what was changed, and whether all is well

    def usage(self) -> Usage:
        """What the project uses, and what it may."""
        return self._wire.get("/v1/usage", Usage)

    def changes(self, **filters: Filter) -> Iterator[Change]:
        """Who changed what, newest first; `filters` are the query parameters of /v1/audit."""
        return self._wire.pages("/v1/audit", Change, **filters)

    def readiness(self) -> Readiness:
        """Whether the service has what it needs. Nothing is raised where it has not."""
        return Readiness.model_validate_json(self._wire.read("/readyz", although=(503,)))
