"""The parts of the running plane."""

from dataclasses import dataclass, replace
from typing import Annotated, Self

from fastapi import Depends, Request

from app.doorbell import Doorbell
from app.rate_limits import RateLimiter
from app.settings import ApiSettings
from models_store.audit import BY, Actor
from models_store.blobs import BlobStore
from models_store.database import Database
from models_store.quotas import LIMITS


@dataclass(frozen=True)
class Plane:
    """The parts that all requests share; `database` sees all projects, unless it was confined to one."""

    settings: ApiSettings
    database: Database
    blobs: BlobStore
    doorbell: Doorbell
    rates: RateLimiter | None
    """None: nobody counts."""
    refused_keys: RateLimiter | None
    """By address; None: nobody counts."""

    def of_project(self, project_id: str, by: Actor) -> Self:
        """The same, with the database as somebody may see and fill it."""
        known = {BY: by, LIMITS: self.settings.limits}
        return replace(self, database=self.database.of_project(project_id, **known))


async def running_plane(request: Request) -> Plane:
    plane: Plane = request.app.state.plane
    return plane


def actor(request: Request, key_id: str | None) -> Actor:
    """On whose behalf a request works."""
    address = request.client.host if request.client else ""
    return Actor(key_id, request.scope["route"].name, address)


WholePlane = Annotated[Plane, Depends(running_plane)]
"""Sees all projects: for what finds out whose a request is. Endpoints take PlaneDep of app.dependencies."""
