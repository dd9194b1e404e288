"""`espalier keys`: what programs show to be let in."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from espalier.client import DEFAULT_URL, Client
from espalier.listing import fields
from espalier.options import AsJson, Url, err
from espalier.resources import ApiKey
from models_store.documents.access import Scope

app = typer.Typer(
    help="API keys of a project; the one in ESPALIER_API_KEY needs the scope admin.", no_args_is_help=True
)
KeyId = Annotated[str, typer.Argument(help="A key's id, key_….", metavar="KEY")]
DAY_H = 24


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; read and write without this, with --direct everything.")
    ] = None,
    days: Annotated[int, typer.Option(min=0, help="Valid for that long; 0: for ever.")] = 0,
    direct: Annotated[
        bool,
        typer.Option(
            help="Not over HTTP but in the database of ESPALIER_DATABASE_URL or ESPALIER_DATA_DIR: the first key."
        ),
    ] = False,
    project: Annotated[str, typer.Option(help="With --direct: the project's name.")] = "default",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print its id and its text, which is shown this once."""
    if direct:
        print(_created_directly(name, scope or list(Scope), days, project, as_json))
        return
    with Client(url) as client:
        show_new(client.create_key(name, scope or (Scope.READ, Scope.WRITE), expiry(days)), as_json)


@app.command("list")
def list_keys(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Every key of the project, newest first."""
    with Client(url) as client:
        for key in client.api_keys():
            print(key.model_dump_json() if as_json else f"{key.id} {','.join(key.scopes)} {_state(key)} {key.name}")


@app.command("show")
def show_key(key_id: KeyId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What a key may do, when it was used last, and whether it still is valid."""
    with Client(url) as client:
        fields(client.get_key(key_id), as_json)


@app.command()
def rotate(
    key_id: KeyId,
    grace_hours: Annotated[
        int, typer.Option(min=0, max=30 * DAY_H, help="The old secret stays valid so long.")
    ] = DAY_H,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret, and print its id and its text, which is shown this once."""
    with Client(url) as client:
        show_new(client.rotate_key(key_id, grace_hours * 3600), as_json)


@app.command()
def revoke(key_id: KeyId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Have a key refused from now on."""
    with Client(url) as client:
        client.revoke_key(key_id)
    if as_json:
        print(json.dumps({"revoked": key_id}))


def _created_directly(name: str, scopes: list[Scope], days: int, project: str, as_json: bool) -> str:
    words = [word for scope in scopes for word in ("--scope", str(scope))]
    command = [sys.executable, "-P", "-m", "models_store.first_key", "--name", name, "--days", str(days), *words]
    made = subprocess.run([*command, "--project", project], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if made.returncode != 0:
        raise typer.Exit(made.returncode)
    return made.stdout.strip() if as_json else " ".join(json.loads(made.stdout).values())


def expiry(days: int) -> datetime | None:
    """The moment so many days from now; 0: never."""
    return datetime.now(UTC) + timedelta(days=days) if days else None


def show_new(key: ApiKey, as_json: bool) -> None:
    """A key that was just made, with its text."""
    if as_json:
        print(key.model_dump_json())
    elif key.key is None:
        err.print(f"{key.id} was made by a request whose answer was lost; rotate it to get its text.")
        raise typer.Exit(1)
    else:
        print(f"{key.id} {key.key}")


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return "expired"
    return f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "unused"
