"""/v1/usage."""

from fastapi import APIRouter

from app.dependencies import CallerDep, PlaneDep, ReadSession
from app.usage.schemas import UsageView
from models_store.quotas import QuotaRepository

router = APIRouter(prefix="/v1/usage", tags=["usage"])


@router.get("", summary="What the project uses")
def get_usage(session: ReadSession, plane: PlaneDep, caller: CallerDep) -> UsageView:
    """Bytes, jobs and job minutes, with the limits that creating is refused at."""
    usage = QuotaRepository(session).usage()
    return UsageView.of(caller.project_id, usage, plane.settings.requests_per_minute)
