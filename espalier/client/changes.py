"""What may be changed, by the names of the API; what is left out stays as it is."""

from collections.abc import Sequence
from typing import TypedDict

from models_store.documents.webhook import Happening


class ProjectChange(TypedDict, total=False):
    """A limit of None: what the service's settings say; 0: nothing at all."""

    name: str
    enabled: bool
    stored_bytes_limit: int | None
    unfinished_jobs_limit: int | None
    job_minutes_limit: int | None


class WebhookChange(TypedDict, total=False):
    """No events: all of them."""

    url: str
    events: Sequence[Happening]
    description: str
    enabled: bool
