# Made by `make client` from espalier/client/asynchronous/automation.py: change that file, not this one.
"""Pipelines and webhooks: what a CI asks of the service."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack
from urllib.parse import quote

from espalier.client import exchange
from espalier.client.changes import WebhookChange
from espalier.client.synchronous.wire import Filter, Wire
from espalier.resources import Delivery, LoggedDelivery, Pipeline, Run, Webhook
from models_store.documents.webhook import Happening


class Automation:
    """The part of the client that asks for these."""

    _wire: Wire

    # Pipelines

    def create_pipeline(self, body: Mapping[str, Any]) -> Pipeline:
        """Save a pipeline, of the form that /docs shows. The answer alone has the `secret` of its inbound events."""
        request = self._wire.request("POST", "/v1/pipelines", json=dict(body), headers=exchange.once())
        return self._wire.ask(request, Pipeline)

    def pipelines(self, **filters: Filter) -> Iterator[Pipeline]:
        """Every pipeline, newest first; `filters` are the query parameters of the list in /docs, here and below."""
        return self._wire.pages("/v1/pipelines", Pipeline, **filters)

    def get_pipeline(self, pipeline_id: str) -> Pipeline:
        return self._wire.get(f"/v1/pipelines/{quote(pipeline_id)}", Pipeline)

    def delete_pipeline(self, pipeline_id: str) -> None:
        """The pipeline and its runs; their jobs stay."""
        self._wire.send(self._wire.request("DELETE", f"/v1/pipelines/{quote(pipeline_id)}"))

    def start_run(
        self,
        pipeline_id: str,
        *,
        model_id: str | None = None,
        dataset_id: str | None = None,
        sha: str | None = None,
        ref: str = "",
        repository: str = "",
    ) -> Run:
        """Run a pipeline; without `model_id` on the model that the pipeline itself names."""
        body = {"model_id": model_id, "dataset_id": dataset_id, "sha": sha, "ref": ref, "repository": repository}
        path = f"/v1/pipelines/{quote(pipeline_id)}/runs"
        return self._wire.ask(self._wire.request("POST", path, json=body, headers=exchange.once()), Run)

    def get_run(self, pipeline_id: str, run_id: str) -> Run:
        return self._wire.get(self._run_path(pipeline_id, run_id), Run)

    def runs(self, pipeline_id: str, **filters: Filter) -> Iterator[Run]:
        """Every run of a pipeline, newest first."""
        return self._wire.pages(f"/v1/pipelines/{quote(pipeline_id)}/runs", Run, **filters)

    def junit(self, run: Run) -> bytes:
        """The run as JUnit XML."""
        return self._wire.read(f"{self._run_path(run.pipeline_id, run.id)}/junit.xml")

    def summary(self, run: Run) -> str:
        """The run as Markdown."""
        return (self._wire.read(f"{self._run_path(run.pipeline_id, run.id)}/summary.md")).decode()

    def _run_path(self, pipeline_id: str, run_id: str) -> str:
        return f"/v1/pipelines/{quote(pipeline_id)}/runs/{quote(run_id)}"

    # Webhooks

    def create_webhook(self, url: str, events: Sequence[Happening] = (), description: str = "") -> Webhook:
        """Have `url` told what happens (all of it without `events`). The answer alone has the `secret`."""
        body = {"url": url, "events": [str(event) for event in events], "description": description}
        return self._wire.ask(self._wire.request("POST", "/v1/webhooks", json=body, headers=exchange.once()), Webhook)

    def webhooks(self, **filters: Filter) -> Iterator[Webhook]:
        """Every endpoint, newest first."""
        return self._wire.pages("/v1/webhooks", Webhook, **filters)

    def get_webhook(self, webhook_id: str) -> Webhook:
        return self._wire.get(f"/v1/webhooks/{quote(webhook_id)}", Webhook)

    def change_webhook(self, webhook_id: str, **change: Unpack[WebhookChange]) -> Webhook:
        """Enabled again, say, after its receiver answered 410."""
        path = f"/v1/webhooks/{quote(webhook_id)}"
        return self._wire.ask(self._wire.request("PATCH", path, json=change), Webhook)

    def test_webhook(self, webhook_id: str) -> Delivery:
        """Have a `webhook.test` event sent."""
        path = f"/v1/webhooks/{quote(webhook_id)}/test"
        return self._wire.ask(self._wire.request("POST", path, headers=exchange.once()), Delivery)

    def deliveries(self, webhook_id: str, **filters: Filter) -> Iterator[Delivery]:
        """Every delivery to an endpoint, newest first."""
        return self._wire.pages(f"/v1/webhooks/{quote(webhook_id)}/deliveries", Delivery, **filters)

    def get_delivery(self, webhook_id: str, delivery_id: str) -> LoggedDelivery:
        """A message with its body and every attempt at it."""
        path = f"/v1/webhooks/{quote(webhook_id)}/deliveries/{quote(delivery_id)}"
        return self._wire.get(path, LoggedDelivery)

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Have the same message sent again."""
        path = f"/v1/webhooks/{quote(webhook_id)}/deliveries/{quote(delivery_id)}/redeliver"
        return self._wire.ask(self._wire.request("POST", path, headers=exchange.once()), Delivery)

    def delete_webhook(self, webhook_id: str) -> None:
        """The endpoint, its deliveries and their log."""
        self._wire.send(self._wire.request("DELETE", f"/v1/webhooks/{quote(webhook_id)}"))
