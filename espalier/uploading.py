"""Files on their way, with a bar where there is a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import progress
from rich.markup import escape

from espalier import packing
from espalier.client import Client, Progress
from espalier.options import err
from espalier.resources import Upload


@contextmanager
def bar(name: str) -> Iterator[Progress]:
    """A progress function that moves a bar, which is gone afterwards."""
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=err, transient=True) as shown:
        task = shown.add_task(escape(name), total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def send(
    client: Client, path: Path, name: str | None = None, architecture: str | None = None, num_classes: int | None = None
) -> Upload:
    """A model or a dataset, by the path's name."""
    kind = packing.recognise(path)
    with bar(path.name) as told:
        if kind.resource == "datasets":
            return client.upload_dataset(path, name=name, progress=told)
        return client.upload_model(path, name=name, architecture=architecture, num_classes=num_classes, progress=told)
