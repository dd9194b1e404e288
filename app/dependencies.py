"""What endpoints ask for: the parts of the running plane, and one transaction per request."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.doorbell import Doorbell
from app.settings import ApiSettings
from models_store.blobs import BlobStore
from models_store.database import Database


@dataclass(frozen=True)
class Plane:
    """The parts that all requests share."""

    settings: ApiSettings
    database: Database
    blobs: BlobStore
    doorbell: Doorbell


def running_plane(request: Request) -> Plane:
    plane: Plane = request.app.state.plane
    return plane


PlaneDep = Annotated[Plane, Depends(running_plane)]


def _read(plane: PlaneDep) -> Iterator[Session]:
    with plane.database.session(read_only=True) as session:
        yield session


def _write(plane: PlaneDep) -> Iterator[Session]:
    with plane.database.session() as session:
        yield session


# Scope "function": the transaction ends before the answer is sent, so what an answer says has been committed, and
# no transaction stays open while a body streams. It begins with its first statement and not before.
ReadSession = Annotated[Session, Depends(_read, scope="function")]
WriteSession = Annotated[Session, Depends(_write, scope="function")]
