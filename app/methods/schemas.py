"""What /v1/methods answers."""

from pydantic import BaseModel

from models_store.catalogue import Method


class MethodList(BaseModel):
    """All at once: there are few."""

    items: list[Method]
