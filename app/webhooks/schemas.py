"""What goes in and out of /v1/webhooks."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from app.pages import Listed, Page
from models_store.documents.timestamp import Timestamp
from models_store.documents.webhook import DeliveryState, Happening
from models_store.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from models_store.targets import MAX_URL_CHARACTERS

Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_URL_CHARACTERS,
        pattern=r"^https?://[\x21-\x7e]+$",
        description="Called with POST; https, and a public address, unless the operator allows more.",
        examples=["https://example.org/espalier"],
    ),
]
Happenings = Annotated[
    tuple[Happening, ...], Field(max_length=len(Happening), description="What it is told; all of it where empty.")
]
Description = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class NewWebhook(BaseModel):
    """An endpoint to be told."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Happenings = ()
    description: Description = ""


class WebhookChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: Happenings | None = None
    description: Description | None = None
    enabled: bool | None = Field(default=None, description="An endpoint that answered 410 is disabled.")


class WebhookView(Listed):
    """An endpoint; its secret was shown when it was made."""

    id: str = Field(examples=["whk_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    url: str
    events: tuple[Happening, ...]
    description: str
    enabled: bool
    disabled_reason: str | None
    created_at: Timestamp

    @classmethod
    def of(cls, endpoint: WebhookEndpoint) -> Self:
        return cls.model_validate(cls.fields_of(endpoint))

    @staticmethod
    def fields_of(endpoint: WebhookEndpoint) -> dict[str, object]:
        same = ("id", "url", "description", "enabled", "disabled_reason", "created_at")
        return {name: getattr(endpoint, name) for name in same} | {"events": endpoint.happenings}


class WebhookWithSecret(WebhookView):
    """A new endpoint, with the secret that signs what it is told. It is not shown again."""

    secret: str = Field(description="For a Standard Webhooks library, which checks `webhook-signature` with it.")

    @classmethod
    def of(cls, endpoint: WebhookEndpoint) -> Self:
        return cls.model_validate({**cls.fields_of(endpoint), "secret": endpoint.secret})


class WebhookPage(Page[WebhookView]):
    """Endpoints, newest first."""


class AttemptView(BaseModel):
    """One try at a delivery."""

    number: int
    at: Timestamp
    took_ms: int
    status: int | None = Field(description="HTTP status of the answer, if there was one.")
    error: str | None = Field(description="Why there was none.")
    answer: str | None = Field(description="The beginning of the answer.")


class DeliveryView(Listed):
    """One message to one endpoint."""

    id: str = Field(examples=["dlv_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    message_id: str = Field(description="`webhook-id`: the same for every attempt and redelivery.")
    event: Happening
    state: DeliveryState
    attempts: int
    next_attempt_at: Timestamp | None
    created_at: Timestamp
    delivered_at: Timestamp | None

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> Self:
        return cls.model_validate(cls.fields_of(delivery))

    @staticmethod
    def fields_of(delivery: WebhookDelivery) -> dict[str, object]:
        same = ("id", "message_id", "state", "attempts", "created_at", "delivered_at")
        waiting = delivery.state is DeliveryState.PENDING
        return {name: getattr(delivery, name) for name in same} | {
            "event": delivery.happening,
            "next_attempt_at": delivery.due_at if waiting else None,
        }


class DeliveryPage(Page[DeliveryView]):
    """Deliveries, newest first."""


class DeliveryWithLog(DeliveryView):
    """A delivery with its body and every attempt at it."""

    body: str = Field(description="As it is sent and signed.")
    log: tuple[AttemptView, ...]

    @classmethod
    def logged(cls, delivery: WebhookDelivery, attempts: Sequence[WebhookAttempt]) -> Self:
        log = [AttemptView.model_validate(attempt, from_attributes=True) for attempt in attempts]
        return cls.model_validate({**cls.fields_of(delivery), "body": delivery.body, "log": log})
