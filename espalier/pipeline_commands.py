"""`espalier pipelines` and `espalier ci`: saved jobs with gates, from the command line of a CI."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from espalier import live
from espalier.client import DEFAULT_URL, Client
from espalier.errors import EspalierError
from espalier.json_files import read_object
from espalier.listing import fields, removed
from espalier.options import AsJson, Url, err, out
from espalier.resources import Run
from espalier.uploading import send
from models_store.documents.pipeline import RunState

PASSED, FAILED, ERRORED = 0, 1, 2

app = typer.Typer(help="Saved jobs with gates.", no_args_is_help=True)

PipelineId = Annotated[str, typer.Argument(help="A pipeline's id, pip_….", metavar="PIPELINE")]


class InvalidPipeline(EspalierError):
    """The file holds no pipeline."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__("invalid_pipeline", f"{file}: {reason}", "examples/ and /docs show the form of one.")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A JSON file: name, job, gates and more (see /docs).")],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Save a pipeline, and print its id and the secret of its inbound events, which is shown this once."""
    with Client(url) as client:
        pipeline = client.create_pipeline(_read(file))
    print(pipeline.model_dump_json() if as_json else f"{pipeline.id} {pipeline.secret}")


@app.command("list")
def list_pipelines(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Every pipeline, newest first."""
    with Client(url) as client:
        for pipeline in client.pipelines():
            print(pipeline.model_dump_json() if as_json else f"{pipeline.id} {pipeline.name}")


@app.command("show")
def show_pipeline(
    pipeline_id: PipelineId,
    run_id: Annotated[str | None, typer.Argument(help="One of its runs, run_….", metavar="[RUN]")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """A pipeline, or one of its runs with what its gates said."""
    with Client(url) as client:
        fields(client.get_run(pipeline_id, run_id) if run_id else client.get_pipeline(pipeline_id), as_json)


@app.command()
def runs(pipeline_id: PipelineId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Every run of a pipeline, newest first."""
    with Client(url) as client:
        for run in client.runs(pipeline_id):
            print(run.model_dump_json() if as_json else f"{run.id} {run.state} {run.reason}")


@app.command()
def remove(pipeline_id: PipelineId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete a pipeline and its runs; their jobs stay."""
    with Client(url) as client:
        client.delete_pipeline(pipeline_id)
    removed(pipeline_id, as_json)


def ci(
    pipeline_id: PipelineId,
    model: Annotated[
        str | None, typer.Option(help="A model's id, mdl_…, or a file, which is uploaded; else the pipeline's own.")
    ] = None,
    commit: Annotated[
        str | None, typer.Option(envvar=["GITHUB_SHA", "CI_COMMIT_SHA"], help="Told the result, where so configured.")
    ] = None,
    ref: Annotated[str, typer.Option(envvar=["GITHUB_REF_NAME", "CI_COMMIT_REF_NAME"], help="Branch or tag.")] = "",
    repository: Annotated[
        str, typer.Option(envvar=["GITHUB_REPOSITORY", "CI_PROJECT_PATH"], help="Whose commit it is.")
    ] = "",
    junit: Annotated[Path | None, typer.Option(help="Write the gates as JUnit XML to this file.")] = None,
    summary: Annotated[
        Path | None, typer.Option(envvar="GITHUB_STEP_SUMMARY", help="Append them as Markdown to this file.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Run a pipeline and wait. Exit code 0: its gates passed; 1: a gate failed; 2: an error, so nothing is known."""
    try:
        run = _run(url, pipeline_id, model, {"sha": commit, "ref": ref, "repository": repository}, junit, summary)
    except (EspalierError, OSError) as error:
        err.print(f"[bold red]error[/bold red] {escape(str(error))}")
        if isinstance(error, EspalierError) and error.hint:
            err.print(escape(error.hint))
        raise typer.Exit(ERRORED) from error
    if as_json:
        print(run.model_dump_json(indent=2))
    else:
        for verdict in run.gates:
            out.print(f"{'[green]✓[/green]' if verdict.passed else '[red]✗[/red]'} {escape(verdict.reason)}")
        out.print(f"{run.state}: {escape(run.reason)}")
    raise typer.Exit({RunState.PASSED: PASSED, RunState.FAILED: FAILED}.get(run.state, ERRORED))


def _run(
    url: str,
    pipeline_id: str,
    model: str | None,
    origin: dict[str, Any],
    junit: Path | None,
    summary: Path | None,
) -> Run:
    """The run, once it has ended."""
    with Client(url) as client:
        run = client.start_run(pipeline_id, model_id=_model_id(client, model), **origin)
        if run.job_id is not None:
            live.follow(client.events(run.job_id), run.job_id, err)
        run = client.get_run(pipeline_id, run.id)
        if junit is not None:
            junit.write_bytes(client.junit(run))
        if summary is not None:
            with summary.open("a") as file:
                file.write(client.summary(run))
    return run


def _model_id(client: Client, model: str | None) -> str | None:
    if model is None or (model.startswith("mdl_") and not Path(model).exists()):
        return model
    return client.wait_until_ready(send(client, Path(model))).id


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except ValueError as error:
        raise InvalidPipeline(file, str(error)) from error
