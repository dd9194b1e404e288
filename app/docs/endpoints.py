"""Swagger UI and Redoc, from the assets of the fastapi-offline wheel, under a policy that allows no other origin."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.responses import Response

from app.errors import PathNotFound

PAGES = Path(__file__).parent / "pages"
ASSETS = Path(str(files("fastapi_offline") / "static"))
ASSET_AGE_S = 3600
ASSET_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # both build styles as they render
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",  # Redoc's search
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def swagger() -> Response:
    """Swagger UI: read, fill in, try."""
    return _page("swagger.html")


@router.get("/redoc")
def redoc() -> Response:
    """Redoc: read on one page."""
    return _page("redoc.html")


@router.get("/docs/start.js")
def start() -> Response:
    """Starts Swagger UI: a file of its own, because the policy forbids scripts within a page."""
    return FileResponse(PAGES / "start.js", media_type="text/javascript")


@router.get("/docs/assets/{name}")
def asset(name: str) -> Response:
    """What the two pages are made of."""
    if name not in ASSET_TYPES:
        raise PathNotFound(f"There is no asset {name}.")
    headers = {"Cache-Control": f"public, max-age={ASSET_AGE_S}"}
    return FileResponse(ASSETS / name, media_type=ASSET_TYPES[name], headers=headers)


def _page(name: str) -> Response:
    return FileResponse(PAGES / name, media_type="text/html", headers={"Content-Security-Policy": POLICY})
