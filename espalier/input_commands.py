"""`espalier models`, `espalier datasets` and `espalier uploads`: what was sent, and what became of it."""

from typing import Annotated

import typer

from espalier.client import DEFAULT_URL, Client
from espalier.listing import Before, Most, Since, fields, removed, rows, visible
from espalier.options import AsJson, Url
from espalier.resources import Upload

models = typer.Typer(help="Models that were uploaded.", no_args_is_help=True)
datasets = typer.Typer(help="Datasets that were uploaded.", no_args_is_help=True)
uploads = typer.Typer(help="Large files on their way; `espalier upload` sends them.", no_args_is_help=True)

ModelId = Annotated[str, typer.Argument(help="A model's id, mdl_….", metavar="MODEL")]
DatasetId = Annotated[str, typer.Argument(help="A dataset's id, dst_….", metavar="DATASET")]
UploadId = Annotated[str, typer.Argument(help="An upload's id, upl_….", metavar="UPLOAD")]
State = Annotated[str | None, typer.Option(help="Only those that are inspecting, ready or rejected.")]
Format = Annotated[str | None, typer.Option(help="Only those of this format.")]
Name = Annotated[str | None, typer.Option(help="Only those of this name.")]


@models.command("list")
def list_models(
    state: State = None,
    format: Format = None,
    name: Name = None,
    since: Since = None,
    before: Before = None,
    most: Most = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Every model, newest first."""
    with Client(url) as client:
        found = client.models(state=state, format=format, name=name, created_from=since, created_before=before)
        rows(found, as_json, _line, most)


@models.command("show")
def show_model(model_id: ModelId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What a model is, and why it was rejected where it was."""
    with Client(url) as client:
        fields(client.get_model(model_id), as_json)


@models.command()
def graph(model_id: ModelId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Every layer with weights: output channels, those that may go, share of the MACs, and why it is kept."""
    with Client(url) as client:
        found = client.model_graph(model_id)
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    for layer in found.layers:
        kept = f"  {layer.pinned_reason}" if layer.pinned_reason else ""
        channels = f"{layer.prunable_channels} of {layer.channels} channels"
        print(visible(f"{layer.name} {layer.op} {channels} {layer.macs_share:.1%}{kept}"))


@models.command("remove")
def remove_model(model_id: ModelId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete a model; what jobs made of it stays."""
    with Client(url) as client:
        client.delete_model(model_id)
    removed(model_id, as_json)


@datasets.command("list")
def list_datasets(
    state: State = None,
    format: Format = None,
    name: Name = None,
    since: Since = None,
    before: Before = None,
    most: Most = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Every dataset, newest first."""
    with Client(url) as client:
        found = client.datasets(state=state, format=format, name=name, created_from=since, created_before=before)
        rows(found, as_json, _line, most)


@datasets.command("show")
def show_dataset(dataset_id: DatasetId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """What a dataset holds, and why it was rejected where it was."""
    with Client(url) as client:
        fields(client.get_dataset(dataset_id), as_json)


@datasets.command("remove")
def remove_dataset(dataset_id: DatasetId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete a dataset; what jobs made with it stays."""
    with Client(url) as client:
        client.delete_dataset(dataset_id)
    removed(dataset_id, as_json)


@uploads.command("show")
def show_upload(upload_id: UploadId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """How much of a large file has arrived, or what became of it."""
    with Client(url) as client:
        fields(client.get_upload(upload_id), as_json)


@uploads.command("remove")
def remove_upload(upload_id: UploadId, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Give a large file up, and free what has arrived of it."""
    with Client(url) as client:
        client.delete_upload(upload_id)
    removed(upload_id, as_json)


def _line(upload: Upload) -> str:
    return f"{upload.id} {upload.state} {upload.format} {upload.size_bytes:,} bytes {upload.name}"
