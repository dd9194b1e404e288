"""`espalier webhooks`: who is told what happens."""

from typing import Annotated

import typer

from espalier.client import DEFAULT_URL, Client
from espalier.client.changes import WebhookChange
from espalier.listing import fields, removed
from espalier.options import AsJson, Url, out, show
from models_store.documents.webhook import Happening

app = typer.Typer(help="URLs that are told what happens.", no_args_is_help=True)

WebhookId = Annotated[str, typer.Argument(help="An endpoint's id, whk_….", metavar="WEBHOOK")]
DeliveryId = Annotated[str, typer.Argument(help="A delivery's id, dlv_….", metavar="DELIVERY")]


@app.command()
def add(
    target: Annotated[str, typer.Argument(help="Called with POST.", metavar="URL")],
    event: Annotated[list[Happening] | None, typer.Option(help="What it is told; all of it without this.")] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Have a URL told, and print its id and its secret, which is shown this once."""
    with Client(url) as client:
        webhook = client.create_webhook(target, event or (), description)
    out.print_json(webhook.model_dump_json()) if as_json else out.print(f"{webhook.id} {webhook.secret}")


@app.command("list")
def list_endpoints(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Every endpoint, newest first."""
    with Client(url) as client:
        for webhook in client.webhooks():
            state = "enabled" if webhook.enabled else f"disabled: {webhook.disabled_reason}"
            print(webhook.model_dump_json() if as_json else f"{webhook.id} {webhook.url} {state}")


@app.command("show")
def show_webhook(webhook_id: WebhookId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """An endpoint: its URL, what it is told, and whether it is."""
    with Client(url) as client:
        fields(client.get_webhook(webhook_id), as_json)


@app.command()
def change(
    webhook_id: WebhookId,
    target: Annotated[str | None, typer.Option(help="Another URL.", metavar="URL")] = None,
    event: Annotated[list[Happening] | None, typer.Option(help="What it is told from now on.")] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Tell it, or tell it nothing; after a 410 it is disabled.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Change an endpoint, or enable it again. What is left out stays as it is; its secret always does."""
    wanted = WebhookChange()
    if target is not None:
        wanted["url"] = target
    if event:
        wanted["events"] = event
    if description is not None:
        wanted["description"] = description
    if enabled is not None:
        wanted["enabled"] = enabled
    with Client(url) as client:
        webhook = client.change_webhook(webhook_id, **wanted)
    show(webhook, as_json, webhook.id)


@app.command("test")
def send_test(webhook_id: WebhookId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Send it a `webhook.test` event."""
    with Client(url) as client:
        delivery = client.test_webhook(webhook_id)
    show(delivery, as_json, delivery.id)


@app.command()
def deliveries(webhook_id: WebhookId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What it was told and is to be told, newest first."""
    with Client(url) as client:
        for each in client.deliveries(webhook_id):
            line = f"{each.id} {each.created_at:%Y-%m-%d %H:%M:%S} {each.event} {each.state} after {each.attempts}"
            print(each.model_dump_json() if as_json else line)


@app.command("delivery")
def show_delivery(
    webhook_id: WebhookId, delivery_id: DeliveryId, url: Url = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """One message: its body, and what came of every attempt at it."""
    with Client(url) as client:
        fields(client.get_delivery(webhook_id, delivery_id), as_json)


@app.command()
def redeliver(
    webhook_id: WebhookId,
    delivery_id: DeliveryId,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send a message again."""
    with Client(url) as client:
        delivery = client.redeliver(webhook_id, delivery_id)
    show(delivery, as_json, delivery.id)


@app.command()
def remove(webhook_id: WebhookId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Tell it no more, and forget what it was told."""
    with Client(url) as client:
        client.delete_webhook(webhook_id)
    removed(webhook_id, as_json)
