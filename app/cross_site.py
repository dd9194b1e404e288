"""A page of another site must not use a visitor's browser to start work here."""

from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import Request

from app.errors import ApiError
from app.settings import ApiSettings, is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class CrossSiteRequest(ApiError):
    """A browser sent this request for a page of another site."""

    status = HTTPStatus.FORBIDDEN
    code = "cross_site_request"
    hint = "Send it from /docs, from the command line or from a server instead."


class UnknownHost(ApiError):
    """The service is for this machine only, and the request was sent to another name."""

    status = HTTPStatus.MISDIRECTED_REQUEST
    code = "unknown_host"
    hint = (
        "Use 127.0.0.1 or localhost. Behind a proxy set ESPALIER_AUTH=required (or off), or ESPALIER_PUBLIC_URL to the "
        "address that its users see."
    )


async def refuse_cross_site(request: Request) -> None:
    """Raise CrossSiteRequest for a changing request that a browser marks as another origin's.

    Programs other than browsers send neither header and pass. Raises UnknownHost where nobody is asked for a key
    because only this machine can ask, and a name of elsewhere was made to lead here (DNS rebinding): a page under that
    name would count as of the same origin.
    """
    settings: ApiSettings = request.app.state.plane.settings
    if settings.local and not _leads_here(request.headers.get("Host", ""), settings):
        raise UnknownHost(f"The request was sent to {request.headers['Host']}.")
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("Host")
    if site not in ("same-origin", "none") if site is not None else foreign:
        raise CrossSiteRequest(f"The request comes from {origin or 'another site'}.")


def _leads_here(host: str, settings: ApiSettings) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:  # a bracket that opens no address
        return False
    return name is None or is_loopback(name) or name == urlsplit(settings.public_url).hostname
