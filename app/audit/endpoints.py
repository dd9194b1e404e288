"""/v1/audit."""

from fastapi import APIRouter

from app.audit.schemas import AuditPage, AuditView
from app.dependencies import ReadSession
from app.pages import After, Filter, Limit, SpanDep
from models_store.audit import AuditRepository

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("", summary="List changes")
def list_changes(
    session: ReadSession,
    span: SpanDep,
    limit: Limit = 50,
    after: After = None,
    key_id: Filter = None,
    action: Filter = None,
    resource: Filter = None,
) -> AuditPage:
    """Who changed what, when and from where; newest first, a page at a time. `resource` is the beginning of a path."""
    rows = AuditRepository(session).list(after, limit + 1, key_id, action, resource, span)
    return AuditPage.of([AuditView.of(entry) for entry in rows], limit)
