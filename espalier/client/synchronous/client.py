# Made by `make client` from espalier/client/asynchronous/client.py: change that file, not this one.
"""The service's resources, one method for each thing that can be asked of it."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx

from espalier import packing, server_sent_events
from espalier.client import exchange, files
from espalier.client.files import CHUNK_BYTES, Arrival, LocalFile, Progress
from espalier.client.synchronous.administration import Administration
from espalier.client.synchronous.automation import Automation
from espalier.client.synchronous.flow import in_thread, sleep
from espalier.client.synchronous.sending import TUS, Parcel, Resource, Sender
from espalier.client.synchronous.wire import Filter, Wire
from espalier.errors import (
    EspalierError,
    JobCancelled,
    JobFailed,
    NoSuchArtifact,
    RequestRefused,
    ServiceUnreachable,
    TookTooLong,
    UploadRejected,
)
from espalier.resources import Artifacts, Job, Link, Method, Methods, ModelGraph, Upload, UploadInPieces
from models_store.documents.estimate_report import EstimateReport
from models_store.documents.event import Event, EventType
from models_store.documents.job import JobState
from models_store.documents.job_spec import AnySpec
from models_store.documents.report import Artifact, Report
from models_store.documents.sweep_report import SweepReport

LASTING_STREAM_S = 15.0  # longer than an attempt to connect: one that broke later than that had worked
RECONNECT_FOR_S = 120.0
RECONNECT_PAUSE_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class Client(Automation, Administration):
    """One service, with an API key if it asks for one. Every method may raise ServiceUnreachable and RequestRefused.

    What can be repeated without harm is, a few times, where that may help; uploads go on where they broke off.
    """

    def __init__(
        self,
        url: str = exchange.DEFAULT_URL,
        *,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        state: Path | None = None,
    ) -> None:
        """Without `api_key`, that of the environment variable ESPALIER_API_KEY is sent, if there is one.

        `state`: the folder where uploads that broke off are remembered, so that another process may go on.
        """
        self._wire = Wire(url, api_key, transport)
        self._sender = Sender(self._wire, state or files.state_folder())

    @property
    def url(self) -> str:
        return self._wire.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._wire.close()

    # Uploads

    def upload_model(
        self,
        path: Path,
        *,
        name: str | None = None,
        architecture: str | None = None,
        num_classes: int | None = None,
        input_shape: tuple[int, int, int] | None = None,
        progress: Progress | None = None,
    ) -> Upload:
        """Send an ONNX file, or safetensors weights with their torchvision `architecture`; it is then inspected."""
        parameters = {
            "format": packing.recognise(path).format,
            "architecture": architecture,
            "num_classes": num_classes,
            "input_shape": ",".join(map(str, input_shape)) if input_shape else None,
        }
        return self._send("models", path, name or path.name, parameters, progress)

    def upload_dataset(self, path: Path, *, name: str | None = None, progress: Progress | None = None) -> Upload:
        """Send an .npz, an archive of one folder of images per class or of CIFAR batches, or such a folder itself."""
        parameters = {"format": packing.recognise(path).format}
        with packing.as_file(path) as file:
            return self._send("datasets", file, name or file.name, parameters, progress)

    def _send(
        self,
        resource: Resource,
        path: Path,
        name: str,
        parameters: Mapping[str, str | int | None],
        progress: Progress | None,
    ) -> Upload:
        file = in_thread(LocalFile.of, path)
        said = {key: str(value) for key, value in parameters.items() if value is not None}
        return self._sender.send(Parcel(resource, file, name, said, progress))

    def models(self, **filters: Filter) -> Iterator[Upload]:
        """Every model, newest first; `filters` are the query parameters of the list in /docs, here and below."""
        return self._wire.pages("/v1/models", Upload, **filters)

    def datasets(self, **filters: Filter) -> Iterator[Upload]:
        """Every dataset, newest first."""
        return self._wire.pages("/v1/datasets", Upload, **filters)

    def get_model(self, model_id: str) -> Upload:
        return self._wire.get(f"/v1/models/{quote(model_id)}", Upload)

    def get_dataset(self, dataset_id: str) -> Upload:
        return self._wire.get(f"/v1/datasets/{quote(dataset_id)}", Upload)

    def model_graph(self, model_id: str) -> ModelGraph:
        """The layers of a model that is ready: channels, cost, or why they cannot be pruned."""
        return self._wire.get(f"/v1/models/{quote(model_id)}/graph", ModelGraph)

    def delete_model(self, model_id: str) -> None:
        """What jobs made of it stays."""
        self._wire.send(self._wire.request("DELETE", f"/v1/models/{quote(model_id)}"))

    def delete_dataset(self, dataset_id: str) -> None:
        """What jobs made with it stays."""
        self._wire.send(self._wire.request("DELETE", f"/v1/datasets/{quote(dataset_id)}"))

    def get_upload(self, upload_id: str) -> UploadInPieces:
        """A large file on its way, as `upload_model` and `upload_dataset` send it."""
        return self._wire.get(f"/v1/uploads/{quote(upload_id)}", UploadInPieces)

    def delete_upload(self, upload_id: str) -> None:
        """Give it up, and free what has arrived."""
        self._wire.send(self._wire.request("DELETE", f"/v1/uploads/{quote(upload_id)}", headers=TUS))

    def wait_until_ready(self, upload: Upload, timeout_s: float = 600) -> Upload:
        """The upload once its inspection has passed. Raises UploadRejected, TookTooLong."""
        look = self.get_model if upload.id.startswith("mdl_") else self.get_dataset
        deadline = time.monotonic() + timeout_s
        pause = FIRST_PAUSE_S
        while upload.state == "inspecting":
            if time.monotonic() > deadline:
                raise TookTooLong(f"{upload.id} is still being inspected", timeout_s)
            sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE_S)
            upload = look(upload.id)
        if upload.rejection is not None:
            raise UploadRejected(upload.rejection)
        return upload

    # Jobs

    def create_job(self, spec: AnySpec) -> Job:
        """Start a job. Sent again where its answer was lost, and still started once."""
        body = spec.model_dump(mode="json", exclude_unset=True) | {"kind": spec.kind}
        request = self._wire.request("POST", "/v1/jobs", json=body, headers=exchange.once())
        return self._wire.ask(request, Job)

    def jobs(self, **filters: Filter) -> Iterator[Job]:
        """Every job, newest first."""
        return self._wire.pages("/v1/jobs", Job, **filters)

    def get_job(self, job_id: str) -> Job:
        return self._wire.get(f"/v1/jobs/{quote(job_id)}", Job)

    def cancel(self, job_id: str) -> Job:
        return self._wire.ask(self._wire.request("POST", f"/v1/jobs/{quote(job_id)}/cancel"), Job)

    def delete_job(self, job_id: str) -> None:
        """One that has ended, with its report and files; with a sweep its points go, too."""
        self._wire.send(self._wire.request("DELETE", f"/v1/jobs/{quote(job_id)}"))

    def retry(self, job_id: str, *, afresh: bool = False) -> Job:
        """Try a job again that failed or was cancelled: from what it had finished, or from the start."""
        body = {"begin": "start" if afresh else "checkpoint"}
        path = f"/v1/jobs/{quote(job_id)}/retry"
        return self._wire.ask(self._wire.request("POST", path, json=body, headers=exchange.once()), Job)

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """Everything that happens in a job, from its beginning or after event `after`, until the job has ended.

        A stream that breaks is taken up again where it broke; an error that may pass is raised only once nothing has
        come for RECONNECT_FOR_S.
        """
        trouble_since: float | None = None
        ended = False
        while True:
            began = time.monotonic()
            try:
                with self._wire.answer(self._event_request(job_id, after)) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:  # the job has ended, and nothing came after
                        return
                    reader = server_sent_events.Reader()
                    for chunk in response.iter_bytes():
                        for message in reader.feed(chunk):
                            event = Event.model_validate_json(message.data)
                            after, trouble_since = event.seq, None
                            if event.type is EventType.STATE:  # a job that ended may have been tried again
                                ended = JobState(event.data["state"]).ended
                            yield event
                if ended:
                    return
                broken: EspalierError = ServiceUnreachable(self.url, "the event stream ended before the job")
            except (ServiceUnreachable, RequestRefused) as error:
                broken = error
            now = time.monotonic()
            if trouble_since is None or now - began > LASTING_STREAM_S:
                trouble_since = now
            pause = exchange.pause_before_resuming(broken, RECONNECT_PAUSE_S)
            if pause is None or now - trouble_since > RECONNECT_FOR_S:
                raise broken
            sleep(pause)

    def _event_request(self, job_id: str, after: int) -> httpx.Request:
        return self._wire.request(
            "GET",
            f"/v1/jobs/{quote(job_id)}/events",
            headers={"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after)} if after else {}),
            timeout=exchange.STREAM_TIMEOUT,
        )

    def log(self, job_id: str) -> str:
        """What has happened in a job so far, a line each."""
        return (self._wire.read(f"/v1/jobs/{quote(job_id)}/logs")).decode()

    def methods(self, kind: str | None = None) -> tuple[Method, ...]:
        """What a job can be told to prune by; `kind`: criterion, allocation, granularity, recovery or export."""
        path = "/v1/methods" + (f"?kind={quote(kind)}" if kind else "")
        return (self._wire.get(path, Methods)).items

    def wait(self, job_id: str) -> Report:
        """The report of a prune job, once it has succeeded. Raises JobFailed, JobCancelled."""
        self.wait_for_end(job_id)
        return self.report(job_id)

    def wait_for_end(self, job_id: str) -> Job:
        """The job of any kind, once it has succeeded. Raises JobFailed, JobCancelled."""
        for _ in self.events(job_id):
            pass
        return self.succeeded(job_id)

    def succeeded(self, job_id: str) -> Job:
        """A job that has ended. Raises JobFailed, JobCancelled."""
        job = self.get_job(job_id)
        if job.state is JobState.CANCELLED:
            raise JobCancelled(job_id)
        if job.error is not None:
            raise JobFailed(job.error)
        return job

    def result(self, job_id: str) -> Report:
        """The report of a prune job that has ended. Raises JobFailed, JobCancelled."""
        self.succeeded(job_id)
        return self.report(job_id)

    def report(self, job_id: str) -> Report:
        """Of a prune job."""
        return self._wire.get(f"/v1/jobs/{quote(job_id)}/report", Report)

    def estimate_report(self, job_id: str) -> EstimateReport:
        """Of an estimate job."""
        return self._wire.get(f"/v1/jobs/{quote(job_id)}/report", EstimateReport)

    def sweep_report(self, job_id: str) -> SweepReport:
        """Of a sweep."""
        return self._wire.get(f"/v1/jobs/{quote(job_id)}/report", SweepReport)

    def html_report(self, job_id: str) -> bytes:
        """The report of any job as one page."""
        return self._wire.read(f"/v1/jobs/{quote(job_id)}/report.html")

    def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        """The files that a job made."""
        return (self._wire.get(f"/v1/jobs/{quote(job_id)}/artifacts", Artifacts)).items

    def link(self, job_id: str, name: str = "report.html", seconds: int = 900) -> Link:
        """A link that opens one file of a job without a key, for so long and a day at most; in a browser, say."""
        path = f"/v1/jobs/{quote(job_id)}/artifacts/{quote(name, safe='')}/link"
        return self._wire.ask(self._wire.request("POST", path, json={"seconds": seconds}), Link)

    def download(self, job_id: str, name: str, to: Path, progress: Progress | None = None) -> Artifact:
        """Fetch one file of a job to the path `to`, which appears only once its SHA-256 is right.

        It goes on where it breaks off, unless nothing more comes for RECONNECT_FOR_S. Raises NoSuchArtifact,
        DigestMismatch.
        """
        listed = {artifact.name: artifact for artifact in self.artifacts(job_id)}
        if name not in listed:
            raise NoSuchArtifact(job_id, name, tuple(listed))
        artifact = listed[name]
        path = f"/v1/jobs/{quote(job_id)}/artifacts/{quote(name, safe='')}"
        with Arrival(to, artifact.size_bytes) as arrival:
            trouble_since: float | None = None
            while not arrival.complete:
                arrived = arrival.size_bytes
                try:
                    self._fetch(path, arrival, progress)
                except (ServiceUnreachable, RequestRefused) as error:
                    now = time.monotonic()
                    if trouble_since is None or arrival.size_bytes > arrived:
                        trouble_since = now
                    pause = exchange.pause_before_resuming(error, RECONNECT_PAUSE_S)
                    if pause is None or now - trouble_since > RECONNECT_FOR_S:
                        raise
                    sleep(pause)
            arrival.keep(name, artifact.sha256)
        return artifact

    def _fetch(self, path: str, arrival: Arrival, progress: Progress | None) -> None:
        """What is missing of a file."""
        headers = {"Range": f"bytes={arrival.size_bytes}-"} if arrival.size_bytes else {}
        with self._wire.answer(self._wire.request("GET", path, headers=headers)) as response:
            for chunk in response.iter_bytes(CHUNK_BYTES):
                in_thread(arrival.add, chunk)
                if progress is not None:
                    progress(arrival.size_bytes, arrival.expected_bytes)
