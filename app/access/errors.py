"""Why a request is not let in."""

from http import HTTPStatus

from app.errors import ApiError
from app.rate_limits import RateLimited, TooManyRefusedKeys

HOW_TO_SEND = (
    "Send the header `Authorization: Bearer esp_…`; the command line and the client take it from ESPALIER_API_KEY."
)
HOW_TO_GET = (
    "Ask an admin of your project for a new one; whoever runs the service makes one with `espalier keys create`."
)


class KeyMissing(ApiError):
    """This service asks for an API key."""

    status = HTTPStatus.UNAUTHORIZED
    code = "key_missing"
    hint = HOW_TO_SEND


class KeyInvalid(ApiError):
    """The API key is not a key of this service."""

    status = HTTPStatus.UNAUTHORIZED
    code = "key_invalid"
    hint = f"Check that all of it was copied. {HOW_TO_GET}"


class KeyExpired(ApiError):
    """The API key is no longer valid."""

    status = HTTPStatus.UNAUTHORIZED
    code = "key_expired"
    hint = HOW_TO_GET


class KeyRevoked(ApiError):
    """The API key was taken back."""

    status = HTTPStatus.UNAUTHORIZED
    code = "key_revoked"
    hint = HOW_TO_GET


class ScopeMissing(ApiError):
    """The API key may not do this."""

    status = HTTPStatus.FORBIDDEN
    code = "scope_missing"
    hint = "Use a key that has the scope; an admin of the project can make one with POST /v1/keys."


ACCESS_ERRORS = (KeyMissing, KeyInvalid, KeyExpired, KeyRevoked, ScopeMissing, RateLimited, TooManyRefusedKeys)
