"""What happens to webhook endpoints and their deliveries."""

import re
from collections.abc import Sequence
from http import HTTPStatus

from sqlalchemy.orm import Session

from app.errors import ApiError
from app.settings import ApiSettings
from app.webhooks.schemas import NewWebhook, WebhookChange
from models_store import targets
from models_store.documents.webhook import DeliveryState, Happening
from models_store.errors import TargetRefused
from models_store.spans import Span
from models_store.tables import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from models_store.webhooks import WebhookRepository

WEBHOOK_ID = re.compile(r"whk_[0-9a-f]{32}")
DELIVERY_ID = re.compile(r"dlv_[0-9a-f]{32}")


class WebhookNotFound(ApiError):
    """There is no such webhook endpoint."""

    status = HTTPStatus.NOT_FOUND
    code = "webhook_not_found"
    hint = "GET /v1/webhooks lists the endpoints with their ids."


class DeliveryNotFound(ApiError):
    """The endpoint has no such delivery."""

    status = HTTPStatus.NOT_FOUND
    code = "delivery_not_found"
    hint = "GET /v1/webhooks/{id}/deliveries lists the deliveries with their ids."


class WebhookDisabled(ApiError):
    """The webhook endpoint is disabled."""

    status = HTTPStatus.CONFLICT
    code = "webhook_disabled"
    hint = 'Enable it with PATCH /v1/webhooks/{id} and {"enabled": true}.'


class TargetNotAllowed(ApiError):
    """This service does not call that URL."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "target_not_allowed"
    hint = "Use an https:// URL of a public address; the operator may allow more with ESPALIER_WEBHOOK_* settings."


def create(session: Session, new: NewWebhook, settings: ApiSettings) -> WebhookEndpoint:
    """Raises TargetNotAllowed."""
    check_target(new.url, settings)
    return WebhookRepository(session).add(new.url, new.events, new.description)


def page(
    session: Session, after: str | None, limit: int, *, enabled: bool | None, span: Span
) -> Sequence[WebhookEndpoint]:
    return WebhookRepository(session).list(after, limit, enabled, span)


def get(session: Session, webhook_id: str) -> WebhookEndpoint:
    """Raises WebhookNotFound."""
    known = WEBHOOK_ID.fullmatch(webhook_id)
    endpoint = WebhookRepository(session).get(webhook_id) if known else None
    if endpoint is None:
        raise WebhookNotFound(f"There is no webhook endpoint {webhook_id}.")
    return endpoint


def change(session: Session, webhook_id: str, wanted: WebhookChange, settings: ApiSettings) -> WebhookEndpoint:
    """Raises WebhookNotFound, TargetNotAllowed."""
    endpoint = get(session, webhook_id)
    if wanted.url is not None:
        check_target(wanted.url, settings)
        endpoint.url = wanted.url
    if wanted.events is not None:
        endpoint.happenings = [str(event) for event in wanted.events]
    if wanted.description is not None:
        endpoint.description = wanted.description
    if wanted.enabled:
        endpoint.enabled, endpoint.disabled_reason = True, None
    elif wanted.enabled is not None:
        WebhookRepository(session).disable(endpoint, "By request.")
    session.flush()
    return endpoint


def delete(session: Session, webhook_id: str) -> None:
    """Raises WebhookNotFound."""
    WebhookRepository(session).delete(get(session, webhook_id).id)


def test(session: Session, webhook_id: str) -> WebhookDelivery:
    """A delivery that tells nothing. Raises WebhookNotFound, WebhookDisabled."""
    webhooks = WebhookRepository(session)
    endpoint = _enabled(session, webhook_id)
    data = {"id": endpoint.id, "links": {"self": f"/v1/webhooks/{endpoint.id}"}}
    return webhooks.tell_one(endpoint, Happening.WEBHOOK_TEST, webhooks.now(), data)


def deliveries(
    session: Session,
    webhook_id: str,
    after: str | None,
    limit: int,
    *,
    state: DeliveryState | None,
    event: Happening | None,
    span: Span,
) -> Sequence[WebhookDelivery]:
    """Raises WebhookNotFound."""
    endpoint = get(session, webhook_id)
    return WebhookRepository(session).deliveries(endpoint.id, after, limit, state, event, span)


def delivery(session: Session, webhook_id: str, delivery_id: str) -> tuple[WebhookDelivery, Sequence[WebhookAttempt]]:
    """With its attempts. Raises WebhookNotFound, DeliveryNotFound."""
    found = _delivery(session, get(session, webhook_id), delivery_id)
    return found, WebhookRepository(session).attempts(found.id)


def redeliver(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """A new delivery of the same message. Raises WebhookNotFound, DeliveryNotFound, WebhookDisabled."""
    endpoint = _enabled(session, webhook_id)
    return WebhookRepository(session).redeliver(_delivery(session, endpoint, delivery_id))


def _delivery(session: Session, endpoint: WebhookEndpoint, delivery_id: str) -> WebhookDelivery:
    known = DELIVERY_ID.fullmatch(delivery_id)
    found = WebhookRepository(session).delivery(endpoint.id, delivery_id) if known else None
    if found is None:
        raise DeliveryNotFound(f"{endpoint.id} has no delivery {delivery_id}.")
    return found


def _enabled(session: Session, webhook_id: str) -> WebhookEndpoint:
    endpoint = get(session, webhook_id)
    if not endpoint.enabled:
        raise WebhookDisabled(f"{webhook_id} is disabled: {endpoint.disabled_reason or ''}")
    return endpoint


def check_target(url: str, settings: ApiSettings) -> None:
    """Raises TargetNotAllowed."""
    rules = targets.Rules(http=settings.webhook_http, private_networks=settings.webhook_private_networks)
    try:
        targets.parse(url, rules)
    except TargetRefused as error:
        raise TargetNotAllowed(f"{url}: {error}.") from error
