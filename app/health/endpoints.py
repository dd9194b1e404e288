"""/healthz and /readyz."""

from fastapi import APIRouter, Response

from app.health import service
from app.health.schemas import Health, Readiness
from app.plane import WholePlane

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """Answers as long as this process can; asks nobody else."""
    return Health()


@router.get(
    "/readyz",
    summary="Is the service ready?",
    responses={503: {"model": Readiness, "description": "Something the service needs is down; the checks say what."}},
)
async def readyz(plane: WholePlane, response: Response) -> Readiness:
    """Looks at the database, the blob store and the broker, each by name."""
    found = await service.readiness(plane)
    response.status_code = 200 if found.status == "ready" else 503
    return found
