"""The service from Python: upload, prune, follow, fetch.

with Client("http://127.0.0.1:8000") as espalier:
    model = espalier.wait_until_ready(espalier.upload_model(Path("model.onnx")))
    job = espalier.create_job(JobSpec(model_id=model.id, budget=Budget(macs_ratio=0.5)))
    for event in espalier.events(job.id):
        print(event.type, event.data)
    espalier.download(job.id, "pruned.onnx", Path("pruned.onnx"))
"""

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from espalier import packing, server_sent_events
from espalier.errors import (
    DigestMismatch,
    EspalierError,
    JobCancelled,
    JobFailed,
    NoSuchArtifact,
    RequestRefused,
    ServiceUnreachable,
    TookTooLong,
    UploadRejected,
)
from espalier.resources import Artifacts, Delivery, Job, Listing, Pipeline, Row, Run, Upload, Webhook
from models_store.documents.event import Event, EventType
from models_store.documents.job import JobState
from models_store.documents.job_spec import JobSpec
from models_store.documents.report import Artifact, Report
from models_store.documents.webhook import Happening

DEFAULT_URL = "http://127.0.0.1:8000"
CHUNK_BYTES = 1 << 20
PAGE = 100
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 120.0
STREAM_SILENCE_S = 60.0  # the service sends a comment at least every 15 s
LASTING_STREAM_S = 15.0  # longer than an attempt to connect: one that broke later than that had worked
RECONNECT_FOR_S = 120.0
RECONNECT_PAUSE_S = 1.0
RETRY_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
LONGEST_RETRY_AFTER_S = 30.0
IDEMPOTENCY_KEY = "Idempotency-Key"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""

Answer = TypeVar("Answer", bound=BaseModel)


class Client:
    """One service. Every method may raise ServiceUnreachable and RequestRefused."""

    def __init__(self, url: str = DEFAULT_URL, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._http = httpx.Client(base_url=self.url, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

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
        return self._put("models", path, name or path.name, parameters, progress)

    def upload_dataset(self, path: Path, *, name: str | None = None, progress: Progress | None = None) -> Upload:
        """Send an .npz, an archive with one folder of images per class, or such a folder itself."""
        parameters = {"format": packing.recognise(path).format}
        with packing.as_file(path) as file:
            return self._put("datasets", file, name or file.name, parameters, progress)

    def get_model(self, model_id: str) -> Upload:
        return self._get(f"/v1/models/{quote(model_id)}", Upload)

    def get_dataset(self, dataset_id: str) -> Upload:
        return self._get(f"/v1/datasets/{quote(dataset_id)}", Upload)

    def wait_until_ready(self, upload: Upload, timeout_s: float = 600) -> Upload:
        """The upload once its inspection has passed. Raises UploadRejected, TookTooLong."""
        look = self.get_model if upload.id.startswith("mdl_") else self.get_dataset
        deadline = time.monotonic() + timeout_s
        pause = FIRST_PAUSE_S
        while upload.state == "inspecting":
            if time.monotonic() > deadline:
                raise TookTooLong(f"{upload.id} is still being inspected", timeout_s)
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE_S)
            upload = look(upload.id)
        if upload.rejection is not None:
            raise UploadRejected(upload.rejection)
        return upload

    # Jobs

    def create_job(self, spec: JobSpec) -> Job:
        """Start a job. Sent again where its answer was lost, and still started once."""
        body = spec.model_dump(mode="json", exclude_unset=True)
        request = self._http.build_request("POST", "/v1/jobs", json=body, headers=_once())
        return self._ask(request, Job)

    def get_job(self, job_id: str) -> Job:
        return self._get(f"/v1/jobs/{quote(job_id)}", Job)

    def cancel(self, job_id: str) -> Job:
        return self._ask(self._http.build_request("POST", f"/v1/jobs/{quote(job_id)}/cancel"), Job)

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """Everything that happens in a job, from its beginning or after event `after`, until the job has ended.

        A stream that breaks is taken up again where it broke; an error is raised only once nothing has answered for
        RECONNECT_FOR_S.
        """
        trouble_since: float | None = None
        while True:
            began = time.monotonic()
            try:
                with self._answer(self._event_request(job_id, after)) as response:
                    if response.status_code == httpx.codes.NO_CONTENT:  # the job has ended, and nothing came after
                        return
                    for message in server_sent_events.messages(response.iter_bytes()):
                        event = Event.model_validate_json(message.data)
                        after, trouble_since = event.seq, None
                        yield event
                        if event.type is EventType.STATE and JobState(event.data["state"]).ended:
                            return
                broken: EspalierError = ServiceUnreachable(self.url, "the event stream ended before the job")
            except (ServiceUnreachable, RequestRefused) as error:
                broken = error
            now = time.monotonic()
            if trouble_since is None or now - began > LASTING_STREAM_S:
                trouble_since = now
            if not _may_pass(broken) or now - trouble_since > RECONNECT_FOR_S:
                raise broken
            time.sleep(RECONNECT_PAUSE_S)

    def wait(self, job_id: str) -> Report:
        """The report, once the job has succeeded. Raises JobFailed, JobCancelled."""
        for _ in self.events(job_id):
            pass
        return self.result(job_id)

    def result(self, job_id: str) -> Report:
        """The report of a job that has ended. Raises JobFailed, JobCancelled."""
        job = self.get_job(job_id)
        if job.state is JobState.CANCELLED:
            raise JobCancelled(job_id)
        if job.error is not None:
            raise JobFailed(job.error)
        return self.report(job_id)

    def report(self, job_id: str) -> Report:
        return self._get(f"/v1/jobs/{quote(job_id)}/report", Report)

    def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        """The files that a job made."""
        return self._get(f"/v1/jobs/{quote(job_id)}/artifacts", Artifacts).items

    def download(self, job_id: str, name: str, to: Path, progress: Progress | None = None) -> Artifact:
        """Fetch one file of a job to the path `to`, which appears only once its SHA-256 is right.

        Raises NoSuchArtifact, DigestMismatch.
        """
        listed = {artifact.name: artifact for artifact in self.artifacts(job_id)}
        if name not in listed:
            raise NoSuchArtifact(job_id, name, tuple(listed))
        artifact = listed[name]
        partial = to.with_name(f".{to.name}.part")
        digest = hashlib.sha256()
        path = f"/v1/jobs/{quote(job_id)}/artifacts/{quote(name, safe='')}"
        try:
            with self._answer(self._http.build_request("GET", path)) as response, partial.open("wb") as file:
                for chunk in response.iter_bytes(CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    if progress is not None:
                        progress(file.tell(), artifact.size_bytes)
            if digest.hexdigest() != artifact.sha256:
                raise DigestMismatch(name, artifact.sha256, digest.hexdigest())
            partial.replace(to)
        finally:
            partial.unlink(missing_ok=True)
        return artifact

    # Pipelines

    def create_pipeline(self, body: Mapping[str, Any]) -> Pipeline:
        """Save a pipeline, of the form that /docs shows. The answer alone has the `secret` of its inbound events."""
        request = self._http.build_request("POST", "/v1/pipelines", json=dict(body), headers=_once())
        return self._ask(request, Pipeline)

    def pipelines(self) -> Iterator[Pipeline]:
        """Every pipeline, newest first."""
        return self._pages("/v1/pipelines", Pipeline)

    def delete_pipeline(self, pipeline_id: str) -> None:
        """The pipeline and its runs; their jobs stay."""
        with self._answer(self._http.build_request("DELETE", f"/v1/pipelines/{quote(pipeline_id)}")):
            pass

    def start_run(
        self,
        pipeline_id: str,
        *,
        model_id: str | None = None,
        dataset_id: str | None = None,
        sha: str | None = None,
        ref: str = "",
        repository: str = "",
    ) -> Run:
        """Run a pipeline; without `model_id` on the model that the pipeline itself names."""
        body = {"model_id": model_id, "dataset_id": dataset_id, "sha": sha, "ref": ref, "repository": repository}
        path = f"/v1/pipelines/{quote(pipeline_id)}/runs"
        return self._ask(self._http.build_request("POST", path, json=body, headers=_once()), Run)

    def get_run(self, pipeline_id: str, run_id: str) -> Run:
        return self._get(self._run_path(pipeline_id, run_id), Run)

    def runs(self, pipeline_id: str) -> Iterator[Run]:
        """Every run of a pipeline, newest first."""
        return self._pages(f"/v1/pipelines/{quote(pipeline_id)}/runs", Run)

    def junit(self, run: Run) -> bytes:
        """The run as JUnit XML."""
        return self._read(f"{self._run_path(run.pipeline_id, run.id)}/junit.xml")

    def summary(self, run: Run) -> str:
        """The run as Markdown."""
        return self._read(f"{self._run_path(run.pipeline_id, run.id)}/summary.md").decode()

    def _run_path(self, pipeline_id: str, run_id: str) -> str:
        return f"/v1/pipelines/{quote(pipeline_id)}/runs/{quote(run_id)}"

    # Webhooks

    def create_webhook(self, url: str, events: Sequence[Happening] = (), description: str = "") -> Webhook:
        """Have `url` told what happens (all of it without `events`). The answer alone has the `secret`."""
        body = {"url": url, "events": [str(event) for event in events], "description": description}
        return self._ask(self._http.build_request("POST", "/v1/webhooks", json=body, headers=_once()), Webhook)

    def webhooks(self) -> Iterator[Webhook]:
        """Every endpoint, newest first."""
        return self._pages("/v1/webhooks", Webhook)

    def test_webhook(self, webhook_id: str) -> Delivery:
        """Have a `webhook.test` event sent."""
        path = f"/v1/webhooks/{quote(webhook_id)}/test"
        return self._ask(self._http.build_request("POST", path, headers=_once()), Delivery)

    def deliveries(self, webhook_id: str) -> Iterator[Delivery]:
        """Every delivery to an endpoint, newest first."""
        return self._pages(f"/v1/webhooks/{quote(webhook_id)}/deliveries", Delivery)

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Have the same message sent again."""
        path = f"/v1/webhooks/{quote(webhook_id)}/deliveries/{quote(delivery_id)}/redeliver"
        return self._ask(self._http.build_request("POST", path, headers=_once()), Delivery)

    def delete_webhook(self, webhook_id: str) -> None:
        """The endpoint, its deliveries and their log."""
        with self._answer(self._http.build_request("DELETE", f"/v1/webhooks/{quote(webhook_id)}")):
            pass

    # The wire

    def _pages(self, path: str, kind: type[Row]) -> Iterator[Row]:
        """All rows of a list, fetched a page at a time."""
        after: str | None = None
        while True:
            query = f"{path}?limit={PAGE}" + (f"&after={after}" if after else "")
            page = self._get(query, Listing[kind])  # type: ignore[valid-type]
            yield from page.items
            after = page.next
            if after is None:
                return

    def _put(
        self,
        resource: str,
        path: Path,
        name: str,
        parameters: Mapping[str, str | int | None],
        progress: Progress | None,
    ) -> Upload:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            request = self._http.build_request(
                "PUT",
                f"/v1/{resource}/{quote(name, safe='')}",
                params={key: value for key, value in parameters.items() if value is not None},
                headers={
                    "Content-Type": "application/octet-stream",
                    "Content-Length": str(size),
                    "Repr-Digest": f"sha-256=:{base64.b64encode(digest).decode()}:",
                },
                content=_read(file, size, progress),
            )
            return self._ask(request, Upload)

    def _event_request(self, job_id: str, after: int) -> httpx.Request:
        return self._http.build_request(
            "GET",
            f"/v1/jobs/{quote(job_id)}/events",
            headers={"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after)} if after else {}),
            timeout=httpx.Timeout(STREAM_SILENCE_S, connect=CONNECT_TIMEOUT_S),
        )

    def _get(self, path: str, kind: type[Answer]) -> Answer:
        return self._ask(self._http.build_request("GET", path, headers={"Accept": "application/json"}), kind)

    def _read(self, path: str) -> bytes:
        with self._answer(self._http.build_request("GET", path)) as response:
            return response.read()

    def _ask(self, request: httpx.Request, kind: type[Answer]) -> Answer:
        """The answer; asked again a few times where that can do no harm and may help."""
        for pause in (*RETRY_PAUSES_S, None):
            try:
                with self._answer(request) as response:
                    return kind.model_validate_json(response.read())
            except (ServiceUnreachable, RequestRefused) as error:
                if pause is None or not _repeatable(request) or not _worth_repeating(error):
                    raise
                time.sleep(max(pause, error.retry_after_s) if isinstance(error, RequestRefused) else pause)
        raise AssertionError("the last round returns or raises")

    @contextmanager
    def _answer(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """The response, its body yet to be read. Errors of any kind come out as this package's exceptions."""
        try:
            response = self._http.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                yield response
            finally:
                response.close()
        except httpx.TransportError as error:
            connected = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise ServiceUnreachable(self.url, str(error) or type(error).__name__, connected) from error


def _may_pass(error: EspalierError) -> bool:
    """Whether the same request may be answered later: nobody answered, or a proxy did in the service's place."""
    return not isinstance(error, RequestRefused) or error.status in (502, 503, 504)


def _once() -> dict[str, str]:
    """The header that makes a creation repeatable."""
    return {IDEMPOTENCY_KEY: str(uuid.uuid4())}


def _repeatable(request: httpx.Request) -> bool:
    """Whether sending it twice does what sending it once does. A body that was streamed cannot be sent again."""
    return request.method == "GET" or IDEMPOTENCY_KEY in request.headers


def _worth_repeating(error: ServiceUnreachable | RequestRefused) -> bool:
    """Whether the next answer may differ: not where nobody listens, which no second's wait mends."""
    if isinstance(error, ServiceUnreachable):
        return error.connected
    passing = error.status in (429, 502, 503, 504) or error.code == "idempotency_key_in_flight"
    return passing and error.retry_after_s <= LONGEST_RETRY_AFTER_S


def _read(file: BinaryIO, size: int, progress: Progress | None) -> Iterator[bytes]:
    sent = 0
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
        sent += len(chunk)
        if progress is not None:
            progress(sent, size)


def _refusal(response: httpx.Response) -> RequestRefused:
    """A problem document as an exception; a proxy's plain page is an answer too."""
    is_problem = response.headers.get("Content-Type", "").startswith("application/problem+json")
    problem = response.json() if is_problem else {}
    return RequestRefused(
        status=response.status_code,
        code=problem.get("code", f"http_{response.status_code}"),
        message=problem.get("detail")
        or problem.get("title")
        or f"HTTP {response.status_code} {response.reason_phrase}",
        hint=problem.get("hint", ""),
        faults=tuple(f"{fault['location']}: {fault['message']}" for fault in problem.get("errors", ())),
        retry_after_s=float(after) if (after := response.headers.get("Retry-After", "")).isdigit() else 0.0,
    )
