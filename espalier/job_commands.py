"""`espalier jobs` and `espalier logs`: what was started, and what happened in it."""

import json
from typing import Annotated

import typer
from rich.markup import escape

from espalier.client import DEFAULT_URL, Client
from espalier.listing import Before, Most, Since, fields, removed, rows
from espalier.options import AsJson, Url, err, show
from espalier.resources import Job
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobKind

app = typer.Typer(help="Jobs that were started.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(help="A job's id, job_….", metavar="JOB")]
DAY_MINUTES = 24 * 60
LINE = ("at", "attempt", "type", "message")


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    kind: Annotated[
        JobKind | None, typer.Option(help="Only those of this kind; inspections of uploads only if asked for.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model, mdl_….")] = None,
    label: Annotated[str | None, typer.Option(help="Only those with this label.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Only the points of this sweep, job_….")] = None,
    since: Since = None,
    before: Before = None,
    most: Most = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Every job, newest first."""
    with Client(url) as client:
        found = client.jobs(
            state=state,
            kind=kind,
            model_id=model,
            label=label,
            parent_id=sweep,
            created_from=since,
            created_before=before,
        )
        rows(found, as_json, _line, most)


@app.command("show")
def show_job(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Where a job stands: its state, its stages, and the reason where it failed."""
    with Client(url) as client:
        fields(client.get_job(job_id), as_json)


@app.command("remove")
def remove_job(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete a job that has ended, with its report and files; with a sweep its points go, too."""
    with Client(url) as client:
        client.delete_job(job_id)
    removed(job_id, as_json)


def logs(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What has happened in a job so far, a line each; `espalier watch` goes on until it has ended."""
    with Client(url) as client:
        log = client.log(job_id)
    for line in log.splitlines() if as_json else ():
        print(json.dumps(dict(zip(LINE, line.split(" ", len(LINE) - 1), strict=True))))
    if not as_json:
        print(log, end="")


def link(
    job_id: JobId,
    name: Annotated[str, typer.Argument(metavar="[FILE]", help="One of the job's files.")] = "report.html",
    minutes: Annotated[int, typer.Option(min=1, max=DAY_MINUTES, help="How long it opens the file.")] = 15,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Print a link that opens one file of a job without an API key: for a browser, or to pass on."""
    with Client(url) as client:
        made = client.link(job_id, name, 60 * minutes)
    show(made, as_json, made.url)


def show_page(address: str) -> None:
    """In the browser of whoever sits here; the address is printed for where there is none."""
    err.print(escape(address))
    if address.startswith(("https://", "http://")):
        typer.launch(address)


def _line(job: Job) -> str:
    done = "" if job.state.ended else f" {job.progress:.0%}"
    why = f" {job.error.code}" if job.error else ""
    return f"{job.id} {job.kind} {job.state}{done}{why} {job.created_at:%Y-%m-%d %H:%M} {job.label or ''}".rstrip()
