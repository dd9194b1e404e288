"""Every error the API answers with: one base that feeds the responses (RFC 9457) and the OpenAPI document."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 100


class Fault(BaseModel):
    """One place of the request that is wrong."""

    location: str = Field(description="Such as `body.budget.macs_ratio`.")
    message: str


class Problem(BaseModel):
    """RFC 9457: what went wrong, and what to do about it."""

    type: str = Field(description="Names the kind of problem, once and for all.")
    title: str = Field(description="The kind of problem in words.")
    status: int
    detail: str = Field(description="What happened this time.")
    code: str = Field(description="The kind of problem, short: what a program should look at.")
    hint: str = Field(description="What to do about it.")
    errors: list[Fault] = Field(default=[], description="The places of the request that are wrong.")


class ApiError(Exception):
    """Base of the errors of this plane: a subclass is a kind of problem, its docstring the title."""

    status: ClassVar[int]  # an HTTPStatus, but for what other standards add to them
    code: ClassVar[str]
    hint: ClassVar[str] = ""

    def __init__(
        self,
        detail: str,
        hint: str | None = None,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = describe(
            self.status, self.code, detail, hint or self.hint, title=self.title(), faults=faults[:MAX_FAULTS]
        )
        self.headers = headers

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).rstrip(".")


class InvalidRequest(ApiError):
    """The request is not of the documented form."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_request"
    hint = "Correct the places listed under `errors`; /docs shows the form with examples."


class UnreadableBody(ApiError):
    """The body cannot be read."""

    status = HTTPStatus.BAD_REQUEST
    code = "unreadable_body"
    hint = "Send JSON in UTF-8."


class BodyTooLarge(ApiError):
    """The body is too large for JSON."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "body_too_large"
    hint = "Files go to POST /v1/models and POST /v1/datasets."


class PathNotFound(ApiError):
    """There is nothing under this path."""

    status = HTTPStatus.NOT_FOUND
    code = "not_found"
    hint = "/docs lists every path."


class MethodNotAllowed(ApiError):
    """This path does not answer to this method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method_not_allowed"
    hint = "The Allow header lists the methods; /docs shows what they do."


class StorageFull(ApiError):
    """The service has no room left."""

    status = HTTPStatus.INSUFFICIENT_STORAGE
    code = "storage_full"
    hint = "Delete models, datasets, uploads or jobs that are no longer needed, or ask the operator for more room."


class DatabaseUnavailable(ApiError):
    """The database does not answer."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "database_unavailable"
    hint = "Nothing was changed: try again in a moment. /readyz names what is down."


class StorageUnavailable(ApiError):
    """The blob store does not answer."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "storage_unavailable"
    hint = "Try again in a moment. /readyz names what is down."


class InternalError(ApiError):
    """The service failed; the request is not at fault."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "internal_error"
    hint = "Try again; if that repeats, tell the operator, whose log explains it."


def describe(status: int, code: str, detail: str, hint: str, *, title: str, faults: Sequence[Fault] = ()) -> Problem:
    """The document of one problem."""
    return Problem(
        type=f"urn:espalier:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        code=code,
        hint=hint,
        errors=list(faults),
    )


def problems(*errors: type[ApiError]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of an endpoint that may answer with these errors, an example for each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        response = responses.setdefault(
            int(error.status),
            {
                "description": error.status.phrase if isinstance(error.status, HTTPStatus) else error.title(),
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        example = describe(error.status, error.code, "…", error.hint, title=error.title())
        response["content"][MEDIA_TYPE]["examples"][error.code] = {
            "summary": error.title(),
            "value": example.model_dump(mode="json", exclude_defaults=True),
        }
    return responses
