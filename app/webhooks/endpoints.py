"""/v1/webhooks."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path, Response
from sqlalchemy.orm import Session

from app.body_limit import BoundedRoute
from app.dependencies import PlaneDep, ReadSession, WriteSession
from app.doorbell import DELIVER
from app.errors import BodyTooLarge, UnreadableBody, problems
from app.idempotency import IDEMPOTENCY_ERRORS, CreationDep
from app.links import links
from app.pages import After, Limit, SpanDep
from app.webhooks import service
from app.webhooks.schemas import (
    DeliveryPage,
    DeliveryView,
    DeliveryWithLog,
    NewWebhook,
    WebhookChange,
    WebhookPage,
    WebhookView,
    WebhookWithSecret,
)
from models_store.documents.webhook import DeliveryState, Happening

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=BoundedRoute)

WebhookId = Annotated[str, Path(examples=["whk_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])]
DeliveryId = Annotated[str, Path(examples=["dlv_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])]
BODY_ERRORS = (UnreadableBody, BodyTooLarge)


@router.post(
    "",
    status_code=201,
    response_model=WebhookWithSecret,
    summary="Add a webhook endpoint",
    responses=links(201, "webhook_id", "get_webhook", "change_webhook", "list_deliveries", "delete_webhook")
    | problems(service.TargetNotAllowed, *BODY_ERRORS, *IDEMPOTENCY_ERRORS),
)
def create_webhook(new: NewWebhook, creation: CreationDep) -> Response:
    """It is told what happens by POST, signed as Standard Webhooks demand. Keep the `secret`: it is shown once."""

    def create(session: Session) -> tuple[WebhookWithSecret, str]:
        endpoint = service.create(session, new, creation.plane.settings)
        return WebhookWithSecret.of(endpoint), f"/v1/webhooks/{endpoint.id}"

    return creation.once(new, create)


@router.get("", summary="List webhook endpoints")
def list_webhooks(
    session: ReadSession, span: SpanDep, limit: Limit = 50, after: After = None, enabled: bool | None = None
) -> WebhookPage:
    """Newest first, a page at a time."""
    rows = service.page(session, after, limit + 1, enabled=enabled, span=span)
    return WebhookPage.of([WebhookView.of(row) for row in rows], limit)


@router.get("/{webhook_id}", summary="Look at a webhook endpoint", responses=problems(service.WebhookNotFound))
def get_webhook(webhook_id: WebhookId, session: ReadSession) -> WebhookView:
    """Whether it is enabled, and why not."""
    return WebhookView.of(service.get(session, webhook_id))


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook endpoint",
    responses=problems(service.WebhookNotFound, service.TargetNotAllowed, *BODY_ERRORS),
)
def change_webhook(webhook_id: WebhookId, wanted: WebhookChange, plane: PlaneDep, session: WriteSession) -> WebhookView:
    """Its URL, what it is told, whether it is told at all."""
    return WebhookView.of(service.change(session, webhook_id, wanted, plane.settings))


@router.delete(
    "/{webhook_id}",
    status_code=204,
    summary="Delete a webhook endpoint",
    responses=problems(service.WebhookNotFound),
)
def delete_webhook(webhook_id: WebhookId, session: WriteSession) -> None:
    """With its deliveries and their log."""
    service.delete(session, webhook_id)


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    response_model=DeliveryView,
    summary="Try a webhook endpoint",
    responses=problems(service.WebhookNotFound, service.WebhookDisabled, *IDEMPOTENCY_ERRORS),
)
def test_webhook(webhook_id: WebhookId, creation: CreationDep, background: BackgroundTasks) -> Response:
    """Sends a `webhook.test` event to it."""

    def create(session: Session) -> tuple[DeliveryView, str]:
        delivery = service.test(session, webhook_id)
        return DeliveryView.of(delivery), f"/v1/webhooks/{webhook_id}/deliveries/{delivery.id}"

    background.add_task(creation.plane.doorbell.ring, DELIVER)
    return creation.once({}, create, HTTPStatus.ACCEPTED)


@router.get("/{webhook_id}/deliveries", summary="List deliveries", responses=problems(service.WebhookNotFound))
def list_deliveries(
    webhook_id: WebhookId,
    session: ReadSession,
    span: SpanDep,
    limit: Limit = 50,
    after: After = None,
    state: DeliveryState | None = None,
    event: Happening | None = None,
) -> DeliveryPage:
    """Newest first, a page at a time."""
    rows = service.deliveries(session, webhook_id, after, limit + 1, state=state, event=event, span=span)
    return DeliveryPage.of([DeliveryView.of(row) for row in rows], limit)


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}",
    summary="Look at a delivery",
    responses=problems(service.WebhookNotFound, service.DeliveryNotFound),
)
def get_delivery(webhook_id: WebhookId, delivery_id: DeliveryId, session: ReadSession) -> DeliveryWithLog:
    """Its body, and every attempt with what the endpoint answered."""
    return DeliveryWithLog.logged(*service.delivery(session, webhook_id, delivery_id))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=DeliveryView,
    summary="Send a message again",
    responses=problems(service.WebhookNotFound, service.DeliveryNotFound, service.WebhookDisabled, *IDEMPOTENCY_ERRORS),
)
def redeliver(
    webhook_id: WebhookId, delivery_id: DeliveryId, creation: CreationDep, background: BackgroundTasks
) -> Response:
    """A new delivery of the same message, with the same `webhook-id`."""

    def create(session: Session) -> tuple[DeliveryView, str]:
        delivery = service.redeliver(session, webhook_id, delivery_id)
        return DeliveryView.of(delivery), f"/v1/webhooks/{webhook_id}/deliveries/{delivery.id}"

    background.add_task(creation.plane.doorbell.ring, DELIVER)
    return creation.once({}, create, HTTPStatus.ACCEPTED)
