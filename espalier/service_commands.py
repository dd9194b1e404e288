"""`espalier usage`, `audit`, `methods` and `status`: what is used, who changed what, what there is, and how it is."""

from typing import Annotated

import typer

from espalier.client import DEFAULT_URL, Client
from espalier.listing import Before, Most, Since, rows, visible
from espalier.options import AsJson, Url
from espalier.resources import Amount, Change
from models_store.catalogue import Kind


def usage(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What the project of the key uses, and what it may."""
    with Client(url) as client:
        found = client.usage()
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    print(f"project {found.project_id}")
    print(f"stored bytes: {_amount(found.stored_bytes)}")
    print(f"queued and running jobs: {_amount(found.unfinished_jobs)}")
    print(f"job minutes, until {found.month_ends_at:%Y-%m-%d}: {_amount(found.job_minutes)}")
    per_minute = "any number" if found.requests_per_minute is None else f"{found.requests_per_minute:,}"
    print(f"requests of one key in a minute: {per_minute}")
    if found.unfinished_inspections is not None:
        print(f"uploads to be inspected: {_amount(found.unfinished_inspections)}")


def audit(
    key: Annotated[str | None, typer.Option(help="Only changes by this key, key_….")] = None,
    action: Annotated[str | None, typer.Option(help="Only this one, such as delete_model.")] = None,
    resource: Annotated[str | None, typer.Option(help="Only paths that begin so, such as /v1/jobs/.")] = None,
    since: Since = None,
    before: Before = None,
    most: Most = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Who changed what, when and from where, newest first. The key needs the scope admin."""
    with Client(url) as client:
        found = client.changes(key_id=key, action=action, resource=resource, created_from=since, created_before=before)
        rows(found, as_json, _line, most)


def methods(
    kind: Annotated[
        str | None,
        typer.Argument(help=f"One of {', '.join(Kind)}; all of them without this."),
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What a job can be told to prune by: name, what it needs of the data, and where it comes from."""
    with Client(url) as client:
        found = client.methods(kind)
    rows(
        found, as_json, lambda each: f"{each.kind} {each.name} (data: {each.data}) {each.title}. {each.paper}".rstrip()
    )


def status(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Whether the service has what it needs: exit code 0 where it has, 1 where something is away."""
    with Client(url) as client:
        found = client.readiness()
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        print(f"{found.status}; API keys: {found.auth}")
        for check in found.checks:
            print(visible(f"{check.name}: {'ok' if check.ok else check.message}"))
    if found.status != "ready":
        raise typer.Exit(1)


def _amount(amount: Amount) -> str:
    used = f"{amount.used:,.0f}" if amount.used == int(amount.used) else f"{amount.used:,.1f}"
    return f"{used} of {amount.limit:,}" if amount.limit is not None else f"{used}, without a limit"


def _line(change: Change) -> str:
    by = change.key_id or "no key"
    return f"{change.at:%Y-%m-%d %H:%M:%S} {by} {change.action} {change.resource} from {change.address}"
