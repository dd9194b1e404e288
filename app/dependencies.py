"""What endpoints ask for: the parts of the plane as their caller may see them, and one transaction per request."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.access.caller import Caller, CallerDep
from app.plane import Plane, WholePlane, actor
from models_store.audit import AuditRepository

__all__ = ["Caller", "CallerDep", "Plane", "PlaneDep", "ReadSession", "WriteSession"]


async def _of_the_caller(plane: WholePlane, caller: CallerDep, request: Request) -> Plane:
    return plane.of_project(caller.project_id, actor(request, caller.key_id))


PlaneDep = Annotated[Plane, Depends(_of_the_caller)]
"""The plane, whose database sees and writes what is the caller's project's."""


def _read(plane: PlaneDep) -> Iterator[Session]:
    with plane.database.session(read_only=True) as session:
        yield session


def _write(plane: PlaneDep, request: Request) -> Iterator[Session]:
    with plane.database.session() as session:
        yield session
        AuditRepository(session).record(request.url.path)


# Scope "function": the transaction ends before the answer is sent, so what an answer says has been committed, and
# no transaction stays open while a body streams. It begins with its first statement and not before.
ReadSession = Annotated[Session, Depends(_read, scope="function")]
WriteSession = Annotated[Session, Depends(_write, scope="function")]
