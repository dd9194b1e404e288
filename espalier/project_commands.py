"""`espalier projects`: whom everything belongs to, for whoever runs the service."""

from typing import Annotated

import typer

from espalier.client import DEFAULT_URL, Client
from espalier.client.changes import ProjectChange
from espalier.key_commands import expiry, show_new
from espalier.listing import fields, rows
from espalier.options import AsJson, Url, show
from espalier.resources import Project
from models_store.documents.access import Scope

app = typer.Typer(
    help="Projects, which share nothing; the key in ESPALIER_API_KEY needs the scope instance.", no_args_is_help=True
)
ProjectId = Annotated[str, typer.Argument(help="A project's id, prj_….", metavar="PROJECT")]
DEFAULT = "default"
"""Of a limit: what the service's settings say."""


def _limit(text: str) -> int | None:
    if text == DEFAULT:
        return None
    if not text.isdecimal():
        raise typer.BadParameter(f"a whole number that is not negative, or '{DEFAULT}'")
    return int(text)


class Limit:
    """The value of an option that may also be absent, which says something else than None."""

    def __init__(self, text: str) -> None:
        self.value = _limit(text)


Bytes = Annotated[Limit | None, typer.Option(parser=Limit, metavar="N|default", help="Bytes it may keep.")]
Jobs = Annotated[Limit | None, typer.Option(parser=Limit, metavar="N|default", help="Jobs queued and running at once.")]
Minutes = Annotated[Limit | None, typer.Option(parser=Limit, metavar="N|default", help="Job minutes in a month.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="No other project has it.")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a project, and print its id; it needs a key next: espalier projects key."""
    with Client(url) as client:
        project = client.create_project(name)
    show(project, as_json, project.id)


@app.command("list")
def list_projects(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Every project, newest first."""
    with Client(url) as client:
        rows(client.projects(), as_json, _line)


@app.command("show")
def show_project(project_id: ProjectId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Its name, its own limits, and whether its keys are accepted."""
    with Client(url) as client:
        fields(client.get_project(project_id), as_json)


@app.command()
def change(
    project_id: ProjectId,
    name: Annotated[str | None, typer.Option(help="No other project has it.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Accept its keys, or refuse them.")] = None,
    stored_bytes: Bytes = None,
    unfinished_jobs: Jobs = None,
    job_minutes: Minutes = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Give it another name or limits of its own, or have its keys refused. What is left out stays as it is."""
    wanted = ProjectChange()
    if name is not None:
        wanted["name"] = name
    if enabled is not None:
        wanted["enabled"] = enabled
    if stored_bytes is not None:
        wanted["stored_bytes_limit"] = stored_bytes.value
    if unfinished_jobs is not None:
        wanted["unfinished_jobs_limit"] = unfinished_jobs.value
    if job_minutes is not None:
        wanted["job_minutes_limit"] = job_minutes.value
    with Client(url) as client:
        project = client.change_project(project_id, **wanted)
    show(project, as_json, _line(project))


@app.command()
def key(
    project_id: ProjectId,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it may do; read, write and admin without this.")
    ] = None,
    days: Annotated[int, typer.Option(min=0, help="Valid for that long; 0: for ever.")] = 0,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a key of a project, and print its id and its text, which is shown this once."""
    with Client(url) as client:
        scopes = scope or (Scope.READ, Scope.WRITE, Scope.ADMIN)
        show_new(client.create_project_key(project_id, name, scopes, expiry(days)), as_json)


def _line(project: Project) -> str:
    own = {
        "bytes": project.stored_bytes_limit,
        "jobs at once": project.unfinished_jobs_limit,
        "job minutes": project.job_minutes_limit,
    }
    limits = ", ".join(f"{limit:,} {what}" for what, limit in own.items() if limit is not None)
    state = "enabled" if project.enabled else "disabled"
    return f"{project.id} {state} {project.name}{f' ({limits})' if limits else ''}"
