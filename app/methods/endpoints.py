"""/v1/methods."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.methods.schemas import MethodList
from models_store.catalogue import Kind, catalogue

router = APIRouter(prefix="/v1/methods", tags=["methods"])


@router.get("", summary="List the methods")
def list_methods(
    kind: Annotated[Kind | None, Query(description="Only methods of this kind.")] = None,
) -> MethodList:
    """Every method that a job may name: what it does, where it comes from, what it needs, and its options."""
    return MethodList(items=[method for method in catalogue().methods if kind in (None, method.kind)])
