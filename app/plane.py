"""The parts of the running plane."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.doorbell import Doorbell
from app.settings import ApiSettings
from models_store.blobs import BlobStore
from models_store.database import Database


@dataclass(frozen=True)
class Plane:
    """The parts that all requests share; `database` sees all projects, unless it was confined to one."""

    settings: ApiSettings
    database: Database
    blobs: BlobStore
    doorbell: Doorbell


def running_plane(request: Request) -> Plane:
    plane: Plane = request.app.state.plane
    return plane


WholePlane = Annotated[Plane, Depends(running_plane)]
"""Sees all projects: for what finds out whose a request is. Endpoints take PlaneDep of app.dependencies."""
