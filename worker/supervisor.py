"""One attempt at one job: fetch its inputs, run its child, keep the row true, put away what came out.

Every write is fenced by the claim. A supervisor whose lease is lost kills its child and writes nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from redis import Redis, RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from models_store import stages
from models_store.blobs import BlobStore
from models_store.checkpoints import CheckpointRepository, scope
from models_store.database import Database
from models_store.datasets import DatasetRepository
from models_store.documents.event import ErrorClass, EventType, JobError
from models_store.documents.faults import sentences
from models_store.documents.inspection import Rejection
from models_store.documents.job import JobState
from models_store.documents.job_spec import ACCEPTED_JOB, JobKind, JobSpec, NewJob
from models_store.documents.mask_part import MaskPart, MaskParts
from models_store.documents.reports import ANY_REPORT, AnyReport
from models_store.errors import BlobCorrupt, BlobMissing, BlobsUnavailable, LeaseLost
from models_store.jobs import Claim, JobRepository, NewArtifact
from models_store.models import ModelRepository
from models_store.presence import present
from models_store.tables import Dataset, Model
from worker import failures, sandbox
from worker.checkpoint_keeper import CheckpointKeeper
from worker.child import Child
from worker.cores import usable_cores
from worker.devices import visible_gpus
from worker.lease import Lease
from worker.messages import CheckpointMessage, Message
from worker.order import CANONICAL_MODEL, EXIT_SPREAD, EXIT_STOPPED, Failure, InputFile, InspectionResult, Order
from worker.settings import WorkerSettings
from worker.work_folder import UntrustedOutput, WorkFolder, media_type, occupied

logger = logging.getLogger(__name__)

_TICK_S = 0.1
_FLUSH_S = 0.5
_WRITE_RETRY_S = 1.0
# Parsing and one run of the graph hold a few copies of its weights.
COPIES_WHILE_INSPECTING = 6
# Below what the slowest inspection reads, which is that of a folder of small images.
_INSPECTED_BYTES_PER_S = 2 * 2**20
# Loading torch takes this much address space, most of it never touched.
_TORCH_BYTES = 8 * 2**30


class _NotWaitedFor(Exception):
    """Nobody needs this part any more."""


class Outcome(Enum):
    """How an attempt ended, as the worker that ran it sees it."""

    ENDED = auto()  # the row says how
    RELEASED = auto()  # given back, for another worker
    SPREAD = auto()  # waits for its parts, which are queued
    LEASE_LOST = auto()  # another worker's now


class Stop(Enum):
    """Why a child was told to stop."""

    CANCELLED = auto()
    DRAINED = auto()
    OVERDUE = auto()
    LEASE_LOST = auto()


def run(
    claim: Claim, database: Database, blobs: BlobStore, settings: WorkerSettings, draining: threading.Event
) -> Outcome:
    """Carry out the attempt that `claim` names and record how it ended. Setting `draining` gives the job back."""
    folder = WorkFolder(settings.work_folder / f"{claim.job_id}-{claim.attempt}")
    try:
        with Lease(database, claim, settings) as lease:
            return _Attempt(claim, database, blobs, settings, draining, folder, lease).run()
    except LeaseLost:
        logger.warning("%s: attempt %s is another worker's now", claim.job_id, claim.attempt)
        return Outcome.LEASE_LOST


@dataclass
class _Attempt:
    claim: Claim
    database: Database
    blobs: BlobStore
    settings: WorkerSettings
    draining: threading.Event
    folder: WorkFolder
    lease: Lease
    pending: list[tuple[EventType, dict[str, Any]]] = field(default_factory=list)
    flushed_at: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.deadline_s = float(self.claim.deadline_s)
        self.stage_names = frozenset(stage.name for stage in stages.initial(self.claim.kind))
        self.keeper = CheckpointKeeper(self.claim, self.database, self.blobs, self.folder)

    def run(self) -> Outcome:
        with ExitStack() as held:
            try:
                held.enter_context(occupied(self.folder))
                order_for = self._prepare()
            except _NotWaitedFor:
                return self._fail(failures.NOT_WAITED_FOR)
            except ValidationError as error:
                return self._fail(failures.spec_refused("; ".join(sentences(error.errors()))))
            except (BlobMissing, BlobCorrupt, BlobsUnavailable, OSError) as error:
                return self._fail(failures.files_unavailable(error), retry=True)
            except DBAPIError as error:
                logger.warning("%s: the database is away: %s", self.claim.job_id, error.orig)
                return self._release()
            return self._carry_out(order_for)

    def _carry_out(self, order_for: Callable[[int], Order]) -> Outcome:
        kills_before = failures.kernel_memory_kills()
        with Child(self.folder, order_for, self._environment()) as child:
            stop = self._watch(child)
        if self.draining.is_set() and stop is None and child.exit_code in (EXIT_STOPPED, -signal.SIGTERM):
            stop = Stop.DRAINED  # whoever told this worker to stop told its child, too
        spread = stop is None and child.exit_code == EXIT_SPREAD
        self.keeper.close(keep_last=spread or stop is Stop.DRAINED)
        match stop:
            case Stop.LEASE_LOST:
                raise LeaseLost(self.claim.job_id)
            case Stop.CANCELLED:
                return self._end(lambda session: JobRepository(session).cancelled(self.claim))
            case Stop.DRAINED:
                return self._release()
            case Stop.OVERDUE:
                return self._fail(failures.overdue(self.claim.kind, self.deadline_s))
        if spread:
            return self._spread()
        out_of_memory = failures.kernel_memory_kills() > kills_before
        return self._conclude(child.exit_code, out_of_memory)

    # Before

    def _prepare(self) -> Callable[[int], Order]:
        kind = JobKind(self.claim.kind)
        spec = self._borrow() if kind is JobKind.MASKS else self.claim.spec
        if kind is not JobKind.MASKS and self.keeper.restore():
            logger.info("%s: attempt %s goes on from a checkpoint", self.claim.job_id, self.claim.attempt)
        with self.database.session(read_only=True) as session:
            model = ModelRepository(session).get(self.claim.model_id) if self.claim.model_id else None
            dataset = DatasetRepository(session).get(self.claim.dataset_id) if self.claim.dataset_id else None
            points = JobRepository(session).points(self.claim.job_id)
            mask_parts, mask_scores = JobRepository(session).mask_parts(self.claim.job_id)
        if kind is JobKind.SWEEP:  # is put together from its points' reports
            model = dataset = None
        upload = model or dataset
        if kind is JobKind.INSPECT and upload is not None:
            allowed = self.settings.inspect_deadline_s + upload.size_bytes / _INSPECTED_BYTES_PER_S
            self.deadline_s = min(self.deadline_s, allowed)
        order = partial(
            Order,
            job_id=self.claim.job_id,
            attempt=self.claim.attempt,
            kind=kind,
            spec=None if kind is JobKind.INSPECT else ACCEPTED_JOB.validate_python(spec),
            model=self._fetch_model(model, kind) if model else None,
            dataset=self._fetch("dataset", dataset, dataset.blob_key) if dataset else None,
            device=self.settings.device,
            threads=self._threads,
            checkpoint_s=self.settings.checkpoint_s,
            sandbox=sandbox.best_tier() if self.settings.sandbox == "auto" else self.settings.sandbox,
            limits=self._limits(kind, upload),
            parent_pid=os.getpid(),
            points=tuple(points),
            part=MaskPart.model_validate(self.claim.spec) if kind is JobKind.MASKS else None,
            mask_parts=tuple(mask_parts),
            mask_scores=tuple(mask_scores),
            workers=self._workers() if spec.get("random_masks") and kind is JobKind.PRUNE else 1,
            spread_s=self.settings.spread_s,
            processes=self._processes(ACCEPTED_JOB.validate_python(spec)) if kind is JobKind.PRUNE else 1,
        )
        return lambda events_fd: order(events_fd=events_fd)

    def _borrow(self) -> dict[str, Any]:
        """The state of the job that this one is a part of; its spec. Raises _NotWaitedFor."""
        with self.database.session(read_only=True) as session:
            job = JobRepository(session).get(self.claim.job_id)
            parent = JobRepository(session).get(job.parent_id) if job is not None and job.parent_id else None
            if parent is None or parent.state is not JobState.QUEUED:
                raise _NotWaitedFor(self.claim.job_id)
            parent_id, spec = parent.id, parent.spec
        if not self.keeper.borrow(parent_id):
            raise _NotWaitedFor(self.claim.job_id)
        return spec

    def _processes(self, spec: NewJob) -> int:
        """That carry the job out: several for a training, where the worker has as many GPUs or is told to."""
        if not isinstance(spec, JobSpec) or not spec.trains:
            return 1
        gpus = visible_gpus(os.environ) if self.settings.device == "cuda" else 1
        return self.settings.training_processes or max(gpus, 1)

    def _workers(self) -> int:
        """Where the broker cannot be asked, this one alone."""
        try:
            with Redis.from_url(self.settings.redis_url, socket_timeout=5, socket_connect_timeout=5) as broker:
                found = present(broker)
        except RedisError:
            return 1
        return max(sum(count for (part, _), count in found.items() if part == "worker"), 1)

    def _fetch_model(self, model: Model, kind: JobKind) -> InputFile:
        """The upload itself when it is to be inspected, the canonical ONNX file afterwards."""
        inspecting = kind is JobKind.INSPECT
        return self._fetch("model", model, model.blob_key if inspecting else model.onnx_key or model.blob_key)

    def _fetch(self, file_name: str, row: Model | Dataset, key: str) -> InputFile:
        path = self.folder.inputs / file_name
        self.blobs.fetch(key, path)
        return InputFile(
            path=path,
            name=row.name,
            format=row.format,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            details=row.details,
        )

    def _limits(self, kind: JobKind, upload: Model | Dataset | None) -> sandbox.Limits:
        if kind is JobKind.INSPECT and upload is not None:
            memory = self.settings.inspect_memory_bytes + COPIES_WHILE_INSPECTING * upload.size_bytes
            return sandbox.Limits(
                memory_bytes=memory + (_TORCH_BYTES if upload.format == "torchvision" else 0),
                cpu_s=(self.settings.inspect_cpu_s or int(self.deadline_s + 1)) * self._threads,
                file_bytes=self.settings.output_bytes,
            )
        # CUDA reserves huge address ranges: a limit on them would say nothing about memory.
        job_memory = self.settings.job_memory_bytes if self.settings.device == "cpu" else None
        return sandbox.Limits(memory_bytes=job_memory, file_bytes=self.settings.output_bytes)

    def _environment(self) -> dict[str, str]:
        return sandbox.environment(os.environ, self.folder.tmp, self._threads)

    @property
    def _threads(self) -> int:
        return self.settings.child_threads or usable_cores()

    # While it runs

    def _watch(self, child: Child) -> Stop | None:
        """Pass on what the child says until it has ended; the reason if it was stopped."""
        while not child.ended:
            stop = self._reason_to_stop()
            if stop is not None:
                child.stop(self.settings.cancel_grace_s if stop is Stop.CANCELLED else self.settings.grace_s)
                if stop is Stop.DRAINED:
                    self._hear(child.last_words())
                return stop
            self._hear(child.listen(_TICK_S))
            if time.monotonic() - self.flushed_at >= _FLUSH_S:
                self._flush()
        self._hear(child.last_words())
        return None

    def _reason_to_stop(self) -> Stop | None:
        if self.lease.lost:
            return Stop.LEASE_LOST
        if self.lease.cancel_requested:
            return Stop.CANCELLED
        if self.draining.is_set():
            return Stop.DRAINED
        return Stop.OVERDUE if time.monotonic() - self.started_at > self.deadline_s else None

    def _hear(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if isinstance(message, CheckpointMessage):
                self.keeper.offer(message.files)
                continue
            type, data = message.event()
            stage = data.get("name") if type is EventType.STAGE else data.get("stage")
            if stage is None or stage in self.stage_names:
                self.pending.append((type, data))

    def _flush(self) -> None:
        """Write what the child said; kept for the next time while the database is away."""
        self.flushed_at = time.monotonic()
        if not self.pending:
            return
        try:
            with self.database.session() as session:
                JobRepository(session).append_events(self.claim, self.pending)
        except DBAPIError as error:
            logger.warning("%s: events wait for the database: %s", self.claim.job_id, error.orig)
        else:
            self.pending.clear()

    # Afterwards

    def _conclude(self, exit_code: int, out_of_memory: bool) -> Outcome:
        try:
            failure = self.folder.read_document(self.folder.failure)
            if failure is not None:
                told = Failure.model_validate_json(failure)
                if told.error.error_class is not ErrorClass.USER:
                    logger.error("%s: %s: %s", self.claim.job_id, told.error.message, self.folder.output_tail())
                return self._fail(told.error, told.retry)
            result = self.folder.read_document(self.folder.result)
            if exit_code != 0 or result is None:
                logger.error("%s: the child ended with %s: %s", self.claim.job_id, exit_code, self.folder.output_tail())
                error, retry = failures.crashed(self.claim.kind, exit_code, out_of_memory)
                return self._fail(error, retry)
            if self.claim.kind == JobKind.INSPECT:
                return self._conclude_inspection(InspectionResult.model_validate_json(result))
            return self._succeed(ANY_REPORT.validate_json(result))
        except BlobsUnavailable as error:
            return self._fail(failures.files_unavailable(error), retry=True)
        except (UntrustedOutput, ValidationError) as error:
            logger.exception("%s: the child's output is not to be believed", self.claim.job_id)
            return self._fail(failures.unbelievable(str(error)))

    def _spread(self) -> Outcome:
        """Queue the parts that the child asks for; the job waits for them."""
        if not self.keeper.has_kept(self.folder.parts):
            return self._fail(failures.files_unavailable(OSError("the state for its parts was not kept")), retry=True)
        try:
            asked_for = MaskParts.model_validate_json(self.folder.read_document(self.folder.parts) or b"")
            if asked_for.stage not in self.stage_names or self.claim.kind != JobKind.PRUNE:
                raise UntrustedOutput(f"a job of kind {self.claim.kind} asked for parts of stage {asked_for.stage!r}")
        except (UntrustedOutput, ValidationError) as error:
            logger.exception("%s: the child's output is not to be believed", self.claim.job_id)
            return self._fail(failures.unbelievable(str(error)))
        self._write(lambda session: JobRepository(session).spread(self.claim, asked_for))
        return Outcome.SPREAD

    def _succeed(self, report: AnyReport) -> Outcome:
        if report.kind != self.claim.kind:
            raise UntrustedOutput(f"a job of kind {self.claim.kind} left the report of one of kind {report.kind}")
        artifacts = [self._put_away(path) for path in self.folder.artifacts()]
        stored = {artifact.name: artifact.sha256 for artifact in artifacts}
        if any(stored.get(artifact.name) != artifact.sha256 for artifact in report.artifacts):
            raise UntrustedOutput("the report names files that are not there, or are others")
        document = report.model_dump(mode="json")

        def succeed(session: Session) -> None:
            JobRepository(session).succeed(self.claim, document, artifacts)
            CheckpointRepository(session).forget(self.claim.job_id)

        outcome = self._end(succeed)
        with suppress(BlobsUnavailable):  # the next retention sweep finds them
            self.blobs.delete_scope(scope(self.claim.job_id))
        return outcome

    def _put_away(self, path: Path) -> NewArtifact:
        blob = self.blobs.put_file(path)
        return NewArtifact(path.name, media_type(path), blob.size_bytes, blob.sha256, blob.key)

    def _conclude_inspection(self, result: InspectionResult) -> Outcome:
        if result.rejection is not None:
            return self._reject(result.rejection)
        found = result.found.model_dump(mode="json") if result.found else {}
        canonical = {path.name: self.blobs.put_file(path).key for path in self.folder.artifacts()}

        def ready(session: Session) -> None:
            JobRepository(session).hold(self.claim)
            if self.claim.model_id is not None:
                models = ModelRepository(session)
                model = models.get(self.claim.model_id)
                if model is not None:
                    models.mark_ready(model.id, found, canonical.get(CANONICAL_MODEL, model.blob_key))
            elif self.claim.dataset_id is not None:
                DatasetRepository(session).mark_ready(self.claim.dataset_id, found)
            JobRepository(session).succeed(self.claim)

        return self._end(ready)

    def _reject(self, rejection: Rejection) -> Outcome:
        document = rejection.model_dump(mode="json")
        error = JobError(
            code=rejection.code,
            error_class=ErrorClass.USER,
            message=rejection.message,
            hint=rejection.hint,
            stage="inspect",
        )

        def reject(session: Session) -> None:
            JobRepository(session).hold(self.claim)
            if self.claim.model_id is not None:
                ModelRepository(session).mark_rejected(self.claim.model_id, document)
            elif self.claim.dataset_id is not None:
                DatasetRepository(session).mark_rejected(self.claim.dataset_id, document)
            JobRepository(session).fail(self.claim, error)

        return self._end(reject)

    def _fail(self, error: JobError, retry: bool = False) -> Outcome:
        return self._end(lambda session: JobRepository(session).fail(self.claim, error, retry))

    def _release(self) -> Outcome:
        self._write(lambda session: JobRepository(session).release(self.claim))
        return Outcome.RELEASED

    def _end(self, operation: Callable[[Session], None]) -> Outcome:
        self._write(operation)
        return Outcome.ENDED

    def _write(self, operation: Callable[[Session], None]) -> None:
        """One transaction: what the child still had to say, and the operation. Waits for the database while ours."""
        while True:
            if self.lease.lost:
                raise LeaseLost(self.claim.job_id)
            try:
                with self.database.session() as session:
                    if self.pending:
                        JobRepository(session).append_events(self.claim, self.pending)
                    operation(session)
                return
            except DBAPIError as error:
                logger.warning("%s: the end waits for the database: %s", self.claim.job_id, error.orig)
                time.sleep(_WRITE_RETRY_S)
