"""Turns whatever goes wrong in a request into a problem document."""

import errno
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from uuid import uuid4

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match

from app.errors import (
    MEDIA_TYPE,
    ApiError,
    BodyTooLarge,
    DatabaseUnavailable,
    Fault,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    PathNotFound,
    Problem,
    StorageFull,
    StorageUnavailable,
    UnreadableBody,
    describe,
)
from app.quotas import quota_error
from app.security_headers import API_HEADERS
from models_store.documents.faults import sentence
from models_store.documents.job_spec import UNKNOWN_KIND, JobKind
from models_store.errors import BlobsUnavailable, QuotaExceeded

log = logging.getLogger(__name__)

HTTP_ERRORS: dict[int, type[ApiError]] = {
    error.status: error for error in (UnreadableBody, PathNotFound, MethodNotAllowed, BodyTooLarge)
}
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, the largest file that this process may write


def install(app: FastAPI) -> None:
    """Make the application answer every error with a problem document."""
    refusals = (ApiError, HTTPException, RequestValidationError, QuotaExceeded)
    for foreseen in (*refusals, DBAPIError, PoolTimeout, BlobsUnavailable, OSError):
        app.add_exception_handler(foreseen, _foreseen)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unforeseen)


def _foreseen(request: Request, error: Exception) -> Response:
    match error:
        case ApiError():
            return _render(error.problem, error.headers)
        case HTTPException():
            return _http_refusal(request, error)
        case RequestValidationError():
            return _render(_invalid(request, error).problem)
        case QuotaExceeded():
            return _foreseen(request, quota_error(error))
        case OperationalError() | PoolTimeout() | DBAPIError(connection_invalidated=True):
            log.error("database: %s", error)
            return _render(DatabaseUnavailable("The database did not answer.").problem, {"Retry-After": "2"})
        case OSError(errno=number) | BlobsUnavailable(__cause__=OSError(errno=number)) if number in NO_ROOM:
            log.error("no room left: %s", error)
            return _render(StorageFull("The disk of the service is full; nothing of the file was kept.").problem)
        case BlobsUnavailable():
            log.error("blob store: %s", error)
            problem = StorageUnavailable("Files can be neither kept nor read right now.").problem
            return _render(problem, {"Retry-After": "2"})
    raise error


def _http_refusal(request: Request, error: HTTPException) -> Response:
    """What the framework itself refuses."""
    detail = f"{request.method} {request.url.path}: {error.detail}"
    kind = HTTP_ERRORS.get(error.status_code)
    if kind is None:
        status = HTTPStatus(error.status_code)
        return _render(describe(status, f"http_{status}", detail, "", title=status.phrase), error.headers)
    headers = {"Allow": ", ".join(_allowed(request))} if kind is MethodNotAllowed else error.headers
    one_slash_more = kind is PathNotFound and len(request.url.path) > 1 and request.url.path.endswith("/")
    return _render(kind(detail, "Leave the slash at the end out." if one_slash_more else None).problem, headers)


def _allowed(request: Request) -> list[str]:
    """The methods of this path, whichever routes they belong to; the framework names those of one route only."""
    routes: Sequence[BaseRoute] = request.app.routes
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    found = {method for method in METHODS if any(route.matches(scopes[method])[0] is Match.FULL for route in routes)}
    also = {"HEAD"} if "GET" in found else set()
    return [method for method in METHODS if method in found | also]


def _invalid(request: Request, error: RequestValidationError) -> InvalidRequest:
    places = [(_location(fault["loc"], fault["type"]), sentence(fault)) for fault in error.errors()]
    faults = [Fault(location=location, message=message) for location, message in places]
    detail = "; ".join(f"{location}: {message}" for location, message in places[:3])
    readable = any(word in request.headers.get("Content-Type", "") for word in ("json", "multipart"))
    unread = [location for location, _ in places] == ["body"] and not readable
    hint = "Send the body with the header `Content-Type: application/json`." if unread else None
    return InvalidRequest(detail, hint, faults=faults)


def _location(place: Sequence[str | int], error: str) -> str:
    """Such as `body.budget.macs_ratio`; the kind of job, by which the body's schema was chosen, is no part of it."""
    tagged = tuple(place[:1]) == ("body",) and len(place) > 1 and place[1] in list(JobKind)
    chosen_by = ("kind",) if error == UNKNOWN_KIND else ()
    return ".".join(map(str, (*((place[0], *place[2:]) if tagged else place), *chosen_by)))


def _gone(request: Request, error: Exception) -> Response:
    """The client hung up in mid-upload: nobody reads this answer, and nothing of the upload is kept."""
    log.info("%s %s: the client hung up", request.method, request.url.path)
    return Response(status_code=HTTPStatus.BAD_REQUEST)


def _unforeseen(request: Request, error: Exception) -> Response:
    """The server logs the traceback by itself; the user gets a number to quote, and no innards."""
    incident = uuid4().hex[:12]
    log.error("incident %s: %s %s: %r", incident, request.method, request.url.path, error)
    failure = InternalError(f"Incident {incident}.", "Quote this number to the operator, whose log explains it.")
    # The middleware that adds headers is not reached from here, and the server hangs up after an error like this.
    return _render(failure.problem, {**API_HEADERS, "Connection": "close"})


def _render(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    content = problem.model_dump(mode="json", exclude_defaults=True)
    return JSONResponse(content, status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)
