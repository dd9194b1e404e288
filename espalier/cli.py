"""The `espalier` command. Results go to standard output, progress and errors to standard error."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from espalier import (
    config,
    estimate_tables,
    input_commands,
    job_commands,
    job_form,
    key_commands,
    live,
    pipeline_commands,
    project_commands,
    service_commands,
    sweep_tables,
    tables,
    webhook_commands,
)
from espalier import job_options as options
from espalier.client import DEFAULT_URL, Client
from espalier.errors import EspalierError, NoFiles, RequestRefused
from espalier.job_commands import JobId
from espalier.options import AsJson, Url, err, out, show
from espalier.resources import Job, Upload
from espalier.uploading import bar, send
from models_store.documents.job_spec import AnySpec, JobKind

app = typer.Typer(
    help="Pruning convolutional networks as a service: ONNX in, a smaller ONNX and a measured report out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
database = typer.Typer(help="The database of a service that you run yourself.", no_args_is_help=True)
app.add_typer(database, name="db")
app.add_typer(pipeline_commands.app, name="pipelines")
app.add_typer(webhook_commands.app, name="webhooks")
app.add_typer(key_commands.app, name="keys")
app.add_typer(project_commands.app, name="projects")
app.add_typer(input_commands.models, name="models")
app.add_typer(input_commands.datasets, name="datasets")
app.add_typer(input_commands.uploads, name="uploads")
app.add_typer(job_commands.app, name="jobs")

SpecFile = Annotated[
    Path | None, typer.Option(help="A JSON file with more of the job's body (see /docs); options come on top.")
]
Wait = Annotated[bool, typer.Option(help="Show the job while it runs, then its result.")]
Output = Annotated[Path | None, typer.Option(help="Folder to fetch the job's files into.")]


OPEN = "need no API key: whoever reaches this address can use everything (ESPALIER_AUTH=required changes that)"


def main() -> None:
    """Run the command; errors that a user can act on become one paragraph and exit code 1."""
    try:
        command = typer.main.get_command(app)
        assert isinstance(command, TyperGroup)  # noqa: S101  it has commands
        command(default_map=config.apply(command))
    except EspalierError as error:
        err.print(f"[bold red]error[/bold red] [dim]({escape(error.code)})[/dim] {escape(error.message)}")
        if isinstance(error, RequestRefused):
            for fault in error.faults:
                if fault not in error.message:
                    err.print(f"  {escape(fault)}")
        if error.hint:
            err.print(escape(error.hint))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


# Running a service


@app.command()
def serve(
    data_dir: Annotated[
        Path, typer.Option(envvar="ESPALIER_DATA_DIR", help="Everything is kept here; created if need be.")
    ] = Path("espalier-data"),
    host: Annotated[
        str,
        typer.Option(
            envvar="ESPALIER_HOST", help="Address to listen on. On any but loopback, requests need an API key."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(envvar="ESPALIER_PORT", min=0, max=65_535, help="Port to listen on; 0 takes a free one."),
    ] = 8000,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs that run at once.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Run the whole service on this machine: API, worker, sweeper, SQLite and a private Redis. Ctrl-C stops all."""
    from espalier.serve import Service

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    err.print(f"Starting over {data_dir.absolute()} …")
    try:
        with Service(data_dir, host, port, jobs) as service:
            if as_json:
                told = {"url": service.url, "docs": f"{service.url}/docs", "keyed": service.keyed}
                print(json.dumps(told | {"first_key": service.first_key}), flush=True)
            else:
                out.print(f"Espalier is ready at [bold]{service.url}[/bold]; try it at {service.url}/docs")
                if service.first_key:
                    out.print(f"The first API key, shown this once: [bold]{service.first_key}[/bold]")
            if service.first_key:
                err.print("Use it as ESPALIER_API_KEY; `espalier keys create` makes others.")
            err.print(f"Requests {'need an API key' if service.keyed else OPEN}.")
            service.watch(lambda line: err.print(line, style="yellow"))
    except KeyboardInterrupt:
        err.print("Stopped.")


@database.command("upgrade")
def upgrade_database(as_json: AsJson = False) -> None:
    """Bring the database named by ESPALIER_DATABASE_URL to this version; `serve` does it by itself."""
    ended = subprocess.run([sys.executable, "-P", "-m", "models_store.migrate"], check=False)
    if as_json:
        print(json.dumps({"upgraded": ended.returncode == 0}))
    raise typer.Exit(ended.returncode)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the pruned model and the report.")] = Path("demo-output"),
    as_json: AsJson = False,
) -> None:
    """Train a small network on scanned digits, prune it through a real service, compare. About two minutes."""
    from espalier.demo import run

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    succeeded = run(output, err if as_json else out)
    if as_json:
        print((output / "report.json").read_text())
    if not succeeded:
        raise typer.Exit(1)


# Using a service


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(help="A model (.onnx, .safetensors) or a dataset (.npz, archive, folder).")],
    name: Annotated[str | None, typer.Option(help="For people; the file's name if left out.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Of .safetensors weights: a torchvision name.")] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, help="Of .safetensors weights; 1000 if left out.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until it has been inspected.")] = True,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Send a model or a dataset and print its id."""
    with Client(url) as client:
        sent = send(client, path, name, architecture, num_classes)
        upload = _inspected(client, sent) if wait else sent
        show(upload, as_json, upload.id)


@app.command()
def prune(
    model: options.Model,
    dataset: options.Dataset = None,
    macs_ratio: options.MacsRatio = None,
    params_ratio: options.ParamsRatio = None,
    size_bytes: options.SizeBytes = None,
    latency_ratio: options.LatencyRatio = None,
    latency_ms: options.LatencyMs = None,
    latency_batch_size: options.LatencyBatchSize = None,
    latency_threads: options.LatencyThreads = None,
    max_accuracy_drop: options.MaxAccuracyDrop = None,
    criterion: options.Criterion = None,
    criterion_options: options.CriterionOptions = None,
    allocation: options.Allocation = None,
    allocation_options: options.AllocationOptions = None,
    round_to: options.RoundTo = None,
    kernel_layout: Annotated[
        str | None, typer.Option(help="Prune kernels, too: grouped, free, pattern, strided or n_m.")
    ] = None,
    kernel_sparsity: Annotated[
        float | None, typer.Option(help="Share of every convolution's kernels that goes.")
    ] = None,
    random_masks: Annotated[
        str | None, typer.Option(help="Keep the best of many random draws: feature_map, kernel or both.")
    ] = None,
    mask_count: Annotated[int | None, typer.Option(help="Random masks to draw.")] = None,
    mask_bn_reestimation: Annotated[
        bool | None, typer.Option(help="Take BatchNormalization's statistics anew for each random mask.")
    ] = None,
    bn_reestimation: Annotated[
        bool | None, typer.Option(help="Take BatchNormalization's statistics anew after the cut.")
    ] = None,
    reconstruction: Annotated[
        bool | None, typer.Option(help="Refit the remaining weights to the original by least squares.")
    ] = None,
    calibration_images: Annotated[int | None, typer.Option(help="For these two, at most; no labels needed.")] = None,
    regularise: Annotated[
        str | None, typer.Option(help="Make what will go vanish before the cut, by training: swd or greg.")
    ] = None,
    regularise_epochs: Annotated[int | None, typer.Option(help="Of that training.")] = None,
    schedule_steps: Annotated[
        int | None, typer.Option(help="Reach the budget in so many rounds, with finetuning in between.")
    ] = None,
    schedule_path: Annotated[str | None, typer.Option(help="On the way: geometric or linear.")] = None,
    schedule_epochs: Annotated[int | None, typer.Option(help="Of finetuning between two rounds.")] = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    distillation: Annotated[
        str | None,
        typer.Option(
            help="Share of the loss that follows the original instead of the labels, 0 to 1; auto, as unless named: "
            "half where the original is right."
        ),
    ] = None,
    export: Annotated[
        str | None, typer.Option(help="Further files, such as float16,int8 or safetensors (of torchvision uploads).")
    ] = None,
    mean: options.Mean = None,
    std: options.Std = None,
    labels: Annotated[
        bool | None, typer.Option(help="--no-labels learns from the original on the images alone, for any task.")
    ] = None,
    batch_sizes: Annotated[str | None, typer.Option(help="At which latency is measured: 1,32")] = None,
    seed: options.Seed = None,
    label: options.Label = None,
    spec: SpecFile = None,
    wait: Wait = True,
    output: Output = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Prune a model to a budget, and finetune it if there is data. What is left out has the service's defaults."""
    form = job_form.fill(
        spec,
        {
            "budget": options.budget(
                macs_ratio=macs_ratio,
                params_ratio=params_ratio,
                size_bytes=size_bytes,
                latency_ratio=latency_ratio,
                latency_ms=latency_ms,
                latency_batch_size=latency_batch_size,
                latency_threads=latency_threads,
                max_accuracy_drop=max_accuracy_drop,
            ),
            "pruning": options.pruning(
                criterion=criterion,
                criterion_options=criterion_options,
                allocation=allocation,
                allocation_options=allocation_options,
                round_to=round_to,
            ),
            "kernels": {"layout": kernel_layout, "sparsity": kernel_sparsity},
            "schedule": {"steps": schedule_steps, "path": schedule_path, "epochs": schedule_epochs},
            "regularisation": {"method": regularise, "epochs": regularise_epochs},
            "random_masks": {
                "granularity": random_masks,
                "count": mask_count,
                "bn_reestimation": mask_bn_reestimation,
            },
            "dataset_id": job_form.ANY_DATASET if dataset else None,
            "data": {"mean": options.numbers(mean), "std": options.numbers(std), "labels": labels},
            "recovery": {
                "bn_reestimation": bn_reestimation,
                "reconstruction": reconstruction,
                "calibration_images": calibration_images,
            },
            "finetuning": {
                "epochs": epochs,
                "learning_rate": learning_rate,
                "distillation": None if distillation is None else options.value_of(distillation),
            },
            "export": dict.fromkeys(export.split(",") if export else (), True),
            "measuring": {"batch_sizes": options.numbers(batch_sizes)},
            "seed": seed,
            "label": label,
        },
    )
    with Client(url) as client:
        _run_job(client, form, model, dataset, wait, output, as_json)


@app.command()
def estimate(
    model: options.Model,
    dataset: options.Dataset = None,
    macs_ratios: Annotated[str | None, typer.Option(help="Budgets of the curve: 0.8,0.6,0.4")] = None,
    keep_ratios: Annotated[str | None, typer.Option(help="Shares that each layer keeps in turn: 0.75,0.5,0.25")] = None,
    images: Annotated[int | None, typer.Option(help="Validation images to run the network on.")] = None,
    macs_ratio: options.MacsRatio = None,
    params_ratio: options.ParamsRatio = None,
    size_bytes: options.SizeBytes = None,
    latency_ratio: options.LatencyRatio = None,
    latency_ms: options.LatencyMs = None,
    latency_batch_size: options.LatencyBatchSize = None,
    latency_threads: options.LatencyThreads = None,
    criterion: options.Criterion = None,
    criterion_options: options.CriterionOptions = None,
    allocation: options.Allocation = None,
    allocation_options: options.AllocationOptions = None,
    round_to: options.RoundTo = None,
    epochs: options.Epochs = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = None,
    label: options.Label = None,
    spec: SpecFile = None,
    wait: Wait = True,
    output: Output = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """What pruning would cost and gain: sensitivities, a curve, a forecast. No training, no pruned model.

    The budget is that of the prune job whose time and memory are forecast.
    """
    lines = options.budget(
        macs_ratio=macs_ratio,
        params_ratio=params_ratio,
        size_bytes=size_bytes,
        latency_ratio=latency_ratio,
        latency_ms=latency_ms,
        latency_batch_size=latency_batch_size,
        latency_threads=latency_threads,
    )
    body = {
        "budget": lines,
        "pruning": options.pruning(
            criterion=criterion,
            criterion_options=criterion_options,
            allocation=allocation,
            allocation_options=allocation_options,
            round_to=round_to,
        ),
        "dataset_id": job_form.ANY_DATASET if dataset else None,
        "data": {"mean": options.numbers(mean), "std": options.numbers(std)},
        "finetuning": {"epochs": epochs},
        "macs_ratios": options.numbers(macs_ratios),
        "keep_ratios": options.numbers(keep_ratios),
        "images": images,
        "seed": seed,
        "label": label,
    }
    form = job_form.fill(spec, body, "estimate")
    with Client(url) as client:
        _run_job(client, form, model, dataset, wait, output, as_json)


@app.command()
def sweep(
    model: options.Model,
    dataset: Annotated[str, typer.Option(help="A dataset's id, dst_…, or a path.")],
    macs_ratios: Annotated[str | None, typer.Option(help="MACs to keep, a point each: 0.7,0.5,0.3")] = None,
    latency_ratios: Annotated[str | None, typer.Option(help="Latencies to keep, a point each: 0.7,0.5")] = None,
    criterion: options.Criterion = None,
    criterion_options: options.CriterionOptions = None,
    allocation: options.Allocation = None,
    allocation_options: options.AllocationOptions = None,
    round_to: options.RoundTo = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = None,
    label: options.Label = None,
    spec: SpecFile = None,
    wait: Wait = True,
    output: Output = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Prune to several budgets, on all workers at once, and show the front of accuracy against MACs and latency."""
    points = [{"macs_ratio": ratio} for ratio in options.numbers(macs_ratios) or ()]
    points += [{"latency_ratio": ratio} for ratio in options.numbers(latency_ratios) or ()]
    body = {
        "budgets": points or None,
        "pruning": options.pruning(
            criterion=criterion,
            criterion_options=criterion_options,
            allocation=allocation,
            allocation_options=allocation_options,
            round_to=round_to,
        ),
        "dataset_id": job_form.ANY_DATASET,
        "data": {"mean": options.numbers(mean), "std": options.numbers(std)},
        "finetuning": {"epochs": epochs, "learning_rate": learning_rate},
        "seed": seed,
        "label": label,
    }
    form = job_form.fill(spec, body, "sweep")
    with Client(url) as client:
        _run_job(client, form, model, dataset, wait, output, as_json)


@app.command()
def watch(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a job from its beginning until it has ended, then its result."""
    with Client(url) as client:
        _print_report(client, _watch(client, job_id), as_json)


@app.command()
def cancel(job_id: JobId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Stop a job: at once if it waits, within seconds if it runs."""
    with Client(url) as client:
        job = client.cancel(job_id)
        show(job, as_json, f"{job.id} is {job.state}")


@app.command()
def retry(
    job_id: JobId,
    afresh: Annotated[bool, typer.Option(help="From the first stage, not after what it had finished.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Try a job again that failed or was cancelled."""
    with Client(url) as client:
        job = client.retry(job_id, afresh=afresh)
        show(job, as_json, f"{job.id} is {job.state}; follow it with: espalier watch {job.id}")


@app.command()
def report(
    job_id: JobId,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page with the plots in a browser.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Print what a job measured. The page with the plots: --open, or espalier download JOB report.html"""
    with Client(url) as client:
        _print_report(client, client.succeeded(job_id), as_json)
        if open_page:
            job_commands.show_page(client.link(job_id).url)


@app.command()
def download(
    job_id: JobId,
    names: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="All files if none is named.")] = None,
    to: Annotated[Path, typer.Option(help="Folder; created if need be.")] = Path(),
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Fetch the files that a job made, and check their SHA-256."""
    with Client(url) as client:
        fetched = _fetch(client, job_id, tuple(names or ()), to)
    if as_json:
        print(json.dumps(fetched, indent=2))


app.command("ci")(pipeline_commands.ci)
app.command("link")(job_commands.link)
app.command("logs")(job_commands.logs)
app.command("methods")(service_commands.methods)
app.command("usage")(service_commands.usage)
app.command("audit")(service_commands.audit)
app.command("status")(service_commands.status)


def _inspected(client: Client, upload: Upload) -> Upload:
    with err.status(f"{upload.id} is being inspected"):
        return client.wait_until_ready(upload)


def _id_of(client: Client, prefix: str, given: str) -> str:
    """The id itself, or that of the file it names, once uploaded and inspected."""
    if given.startswith(prefix) and not Path(given).exists():
        return given
    upload = _inspected(client, send(client, Path(given)))
    err.print(f"{given} is {upload.id}")
    return upload.id


def _run_job(
    client: Client, form: AnySpec, model: str, dataset: str | None, wait: bool, output: Path | None, as_json: bool
) -> None:
    """Start a job on a model and a dataset, which may have to be uploaded first; show it and what it found."""
    model_id = _id_of(client, "mdl_", model)
    dataset_id = _id_of(client, "dst_", dataset) if dataset else None
    job = client.create_job(form.model_copy(update={"model_id": model_id, "dataset_id": dataset_id}))
    if not (wait or output):
        show(job, as_json, f"{job.id} is {job.state}; follow it with: espalier watch {job.id}")
        return
    _print_report(client, _watch(client, job.id), as_json)
    if output:
        _fetch(client, job.id, (), output)


def _watch(client: Client, job_id: str) -> Job:
    """Follow to the end. Raises JobFailed, JobCancelled."""
    try:
        live.follow(client.events(job_id), job_id, err, [stage.name for stage in client.get_job(job_id).stages])
    except KeyboardInterrupt:
        err.print(f"The job goes on. See it again: espalier watch {job_id}. Stop it: espalier cancel {job_id}")
        raise
    return client.succeeded(job_id)


def _fetch(client: Client, job_id: str, names: tuple[str, ...], to: Path) -> list[dict[str, str | int]]:
    """Paths, sizes and digests, with a bar for each where there is a terminal. Raises NoFiles."""
    wanted = names or tuple(artifact.name for artifact in client.artifacts(job_id))
    if not wanted:
        job = client.get_job(job_id)
        raise NoFiles(job.id, job.state, job.error)
    to.mkdir(parents=True, exist_ok=True)
    fetched: list[dict[str, str | int]] = []
    for name in wanted:
        path = to / Path(name).name
        with bar(path.name) as progress:
            artifact = client.download(job_id, name, path, progress)
        fetched.append({"path": str(path), "size_bytes": artifact.size_bytes, "sha256": artifact.sha256})
        err.print(f"{path}  {artifact.size_bytes:,} bytes, SHA-256 {artifact.sha256}")
    return fetched


def _print_report(client: Client, job: Job, as_json: bool) -> None:
    found, shown = _report_of(client, job)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    for table in shown:
        out.print(table, soft_wrap=False)


def _report_of(client: Client, job: Job) -> tuple[BaseModel, Iterable[Table]]:
    """The report of a job, and what is printed of it."""
    if job.kind == JobKind.ESTIMATE:
        estimated = client.estimate_report(job.id)
        return estimated, estimate_tables.all_of(estimated)
    if job.kind == JobKind.SWEEP:
        swept = client.sweep_report(job.id)
        return swept, sweep_tables.all_of(swept)
    found = client.report(job.id)
    return found, tables.all_of(found)
