"""A page of another site must not use a visitor's browser to start work here."""

from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import Request

from app.errors import ApiError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class CrossSiteRequest(ApiError):
    """A browser sent this request for a page of another site."""

    status = HTTPStatus.FORBIDDEN
    code = "cross_site_request"
    hint = "Send it from /docs, from the command line or from a server instead."


async def refuse_cross_site(request: Request) -> None:
    """Raise CrossSiteRequest for a changing request that a browser marks as another origin's.

    Programs other than browsers send neither header and pass.
    """
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("Host")
    if site not in ("same-origin", "none") if site is not None else foreign:
        raise CrossSiteRequest(f"The request comes from {origin or 'another site'}.")
