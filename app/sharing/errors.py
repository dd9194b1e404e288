"""Why a link opens nothing."""

from http import HTTPStatus

from app.errors import ApiError

HOW_TO_GET = "Ask whoever sent it for a new one: `espalier link JOB`, or POST /v1/jobs/{id}/artifacts/{name}/link."


class LinkInvalid(ApiError):
    """The link is not one that this service has signed."""

    status = HTTPStatus.FORBIDDEN
    code = "link_invalid"
    hint = f"Check that all of it was copied. {HOW_TO_GET}"


class LinkOver(ApiError):
    """The link has expired."""

    status = HTTPStatus.GONE
    code = "link_expired"
    hint = HOW_TO_GET


class LinkTakenBack(ApiError):
    """The link was good once, and whoever made it may no longer look at the file."""

    status = HTTPStatus.FORBIDDEN
    code = "link_revoked"
    hint = HOW_TO_GET
