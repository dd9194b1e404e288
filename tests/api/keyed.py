"""A service that asks for keys, and keys for it, made as the command line makes the first one: in the database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx

from models_store.api_keys import ApiKeyRepository
from models_store.documents.access import Scope
from models_store.projects import DEFAULT_PROJECT, ProjectRepository
from tests.api.running_api import Serve, Service

PROJECT_SCOPES = (Scope.READ, Scope.WRITE, Scope.ADMIN)


def key_of(service: Service, project_id: str = DEFAULT_PROJECT, *scopes: Scope) -> str:
    """The text of a new key; of all scopes of a project unless told."""
    with service.database.of_project(project_id).session() as session:
        return ApiKeyRepository(session).add("test", scopes or PROJECT_SCOPES)[1]


def project_of(service: Service, name: str) -> str:
    """The id of a new project."""
    with service.database.session() as session:
        return ProjectRepository(session).add(name).id


@dataclass(frozen=True)
class Keyed:
    """A service that asks for keys."""

    service: Service

    @contextmanager
    def with_key(self, key: str | None) -> Iterator[Service]:
        """The service as the holder of a key sees it."""
        headers = {"Authorization": b"Bearer " + key.encode()} if key else {}
        with httpx.Client(base_url=self.service.url, timeout=30, headers=headers) as http:
            yield replace(self.service, http=http)

    @contextmanager
    def as_project(self, project_id: str = DEFAULT_PROJECT, *scopes: Scope) -> Iterator[Service]:
        """The service as a project sees it."""
        with self.with_key(key_of(self.service, project_id, *scopes)) as service:
            yield service


@contextmanager
def keyed_service(serve: Serve, database_url: str, **settings: object) -> Iterator[Keyed]:
    with serve(database_url, auth="required", **settings) as service:
        yield Keyed(service)
