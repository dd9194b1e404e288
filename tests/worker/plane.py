"""A job plane of real parts for one test: Redis, database, blobs, and worker processes that may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models_store.blobs import BlobStore
from models_store.checkpoints import CheckpointRepository
from models_store.database import Database
from models_store.datasets import DatasetRepository
from models_store.documents.event import EventType
from models_store.documents.job import JobState
from models_store.documents.job_spec import NEW_JOB, JobKind, SweepSpec
from models_store.jobs import Claim, JobRepository
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT
from models_store.tables import Dataset, Job, JobArtifact, JobEvent, Model
from tests.redis_server import RedisServer
from tests.waiting import until
from tests.worker.networks import coloured_squares, convnet
from worker import supervisor
from worker.celery_app import RING, make_celery
from worker.engine.graph import analyze
from worker.runner.inspection import describe
from worker.settings import WorkerSettings
from worker.supervisor import Outcome

ROOT = Path(__file__).resolve().parents[2]


def find_child(job_id: str) -> int | None:
    """The process id of the job's child on this machine, if it has one."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"worker.runner" in command and job_id in os.fsdecode(command[-2]):
                return int(folder.name)
    return None


@dataclass
class Plane:
    """Everything but the API. Workers end with the test."""

    database: Database
    blobs: BlobStore
    broker: RedisServer
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def environment(self, **settings: object) -> dict[str, str]:
        chosen = {
            "blobs_url": self.blobs.url,
            "child_threads": 1,
            "data_dir": self.folder,
            "database_url": self.database.url.render_as_string(hide_password=False),
            "heartbeat_s": 0.5,
            "lease_s": 3,
            "poll_s": 0.2,
            "redis_url": self.broker.url,
            "sweep_s": 0.3,
            **settings,
        }
        own = {f"ESPALIER_{name.upper()}": str(value) for name, value in chosen.items()}
        return {**os.environ, "PYTHONPATH": str(ROOT), **own}

    def start(self, module: str, *arguments: str, **settings: object) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{module}-{len(self.processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self.environment(**settings),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def start_worker(self, concurrency: int = 1, **settings: object) -> subprocess.Popen[bytes]:
        return self.start("worker", "--concurrency", str(concurrency), **settings)

    def start_sweeper(self) -> subprocess.Popen[bytes]:
        return self.start("worker.sweeper")

    def work(self, draining: threading.Event | None = None, **settings: Any) -> list[Outcome]:
        """Run every queued job in this process, as a worker's task does."""
        outcomes = []
        draining = draining or threading.Event()
        while not draining.is_set() and (claim := self.claim()) is not None:
            outcomes.append(self.run(claim, draining, **settings))
        return outcomes

    def cut_off(self, when: Callable[[], object], action: Callable[[], object] | None, **settings: Any) -> Outcome:
        """One attempt, with `action` as soon as `when` is true; without an action the worker is drained. AssertionError
        where the attempt ends before that."""
        draining, ended, cut = threading.Event(), threading.Event(), threading.Event()

        def act() -> None:
            until(lambda: when() or ended.is_set(), 200, "the moment")
            if not ended.is_set():
                action() if action is not None else draining.set()
                cut.set()

        thread = threading.Thread(target=act)
        thread.start()
        (outcome,) = self.work(draining, **settings)
        ended.set()
        thread.join()
        assert cut.is_set(), f"{outcome} before the moment at which it was to be cut off"
        return outcome

    def run(self, claim: Claim, draining: threading.Event | None = None, **settings: Any) -> Outcome:
        """Carry out an attempt in this process."""
        chosen = WorkerSettings(data_dir=self.folder, child_threads=1, **settings)
        return supervisor.run(claim, self.database, self.blobs, chosen, draining or threading.Event())

    def claim(self) -> Claim | None:
        with self.database.session() as session:
            return JobRepository(session).claim("this test")

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
        for process in self.processes:
            process.wait()

    def ring(self) -> None:
        with make_celery(self.broker.url) as application:
            application.send_task(RING)

    def upload_model(self, data: bytes, format: str = "onnx", **details: Any) -> tuple[str, str]:
        """A model and its inspect job: (model id, job id)."""
        blob = self.blobs.put_file(self.keep(data))
        with self.database.of_project(DEFAULT_PROJECT).session() as session:
            model = ModelRepository(session).add("model", format, blob.sha256, blob.size_bytes, blob.key, details)
            job = JobRepository(session).create(JobKind.INSPECT, {}, model_id=model.id)
        return model.id, job.id

    def upload_dataset(self, data: bytes, format: str, **details: Any) -> tuple[str, str]:
        blob = self.blobs.put_file(self.keep(data))
        with self.database.of_project(DEFAULT_PROJECT).session() as session:
            dataset = DatasetRepository(session).add("dataset", format, blob.sha256, blob.size_bytes, blob.key, details)
            job = JobRepository(session).create(JobKind.INSPECT, {}, dataset_id=dataset.id)
        return dataset.id, job.id

    def submit(self, **spec: Any) -> str:
        budget = {} if "budgets" in spec else {"budget": {"macs_ratio": 0.5}}
        job = NEW_JOB.validate_python({**budget, **spec})
        with self.database.session() as session:
            repository = JobRepository(session)
            if isinstance(job, SweepSpec):
                return repository.create_sweep(job).id
            document = job.model_dump(mode="json")
            return repository.create(JobKind(job.kind), document, job.model_id, job.dataset_id, job.deadline_s).id

    def ready_inputs(self) -> dict[str, str]:
        """A small model and its dataset, ready, as fields of a job's spec. Their inspection is not what is tested."""
        model_file, images = convnet(), coloured_squares()
        network = self.blobs.put_file(self.keep(model_file.SerializeToString()))
        found = describe(model_file, analyze(model_file), network.size_bytes)
        data = self.blobs.put_file(self.keep(images))
        with self.database.of_project(DEFAULT_PROJECT).session() as session:
            models, datasets = ModelRepository(session), DatasetRepository(session)
            model = models.add("model", "onnx", network.sha256, network.size_bytes, network.key)
            models.mark_ready(model.id, found.model_dump(mode="json"), network.key)
            dataset = datasets.add("dataset", "npz", data.sha256, data.size_bytes, data.key)
            datasets.mark_ready(dataset.id, {})
        return {"model_id": model.id, "dataset_id": dataset.id}

    def cancel(self, job_id: str) -> None:
        with self.database.session() as session:
            JobRepository(session).request_cancel(job_id)

    def job(self, job_id: str) -> Job:
        with self.database.session(read_only=True) as session:
            job = JobRepository(session).get(job_id)
        assert job is not None
        return job

    def model(self, model_id: str) -> Model:
        with self.database.session(read_only=True) as session:
            model = ModelRepository(session).get(model_id)
        assert model is not None
        return model

    def dataset(self, dataset_id: str) -> Dataset:
        with self.database.session(read_only=True) as session:
            dataset = DatasetRepository(session).get(dataset_id)
        assert dataset is not None
        return dataset

    def events(self, job_id: str, type: EventType | None = None) -> list[JobEvent]:
        with self.database.session(read_only=True) as session:
            events = JobRepository(session).events(job_id, limit=100_000)
        return [event for event in events if type is None or event.type is type]

    def points(self, sweep_id: str) -> list[str]:
        """The jobs of a sweep, in the order of its budgets."""
        with self.database.session(read_only=True) as session:
            return [point.job_id for point in JobRepository(session).points(sweep_id)]

    def states(self, job_id: str) -> list[str]:
        return [event.data["state"] for event in self.events(job_id, EventType.STATE)]

    def artifacts(self, job_id: str) -> dict[str, JobArtifact]:
        with self.database.session(read_only=True) as session:
            return {artifact.name: artifact for artifact in JobRepository(session).artifacts(job_id)}

    def kept(self, job_id: str) -> dict[str, str]:
        """The files of the job's checkpoint, and their blobs."""
        with self.database.session(read_only=True) as session:
            return CheckpointRepository(session).files(job_id)

    def report(self, job_id: str) -> dict[str, Any] | None:
        with self.database.session(read_only=True) as session:
            return JobRepository(session).report(job_id)

    def wait(self, job_id: str, state: JobState | None = None, timeout_s: float = 90) -> Job:
        """The job once it is in that state, or has ended."""

        def reached() -> Job | None:
            job = self.job(job_id)
            return job if job.state is state or job.state.ended else None

        job = until(reached, timeout_s, lambda: f"{job_id} to be {state or 'ended'}: {self.logs()}")
        assert state in (None, job.state), f"{job_id} is {job.state}: {job.error}"
        return job

    def wait_for_training(self, job_id: str, epochs: int = 1, attempt: int = 1) -> None:
        """Until the attempt has trained for that many epochs."""

        def trained() -> bool:
            job = self.job(job_id)
            assert not job.state.ended, f"{job_id} is {job.state}: {job.error}"
            return len(self.epochs(job_id, attempt)) > epochs

        until(trained, 90, lambda: f"epoch {epochs} of {job_id}: {self.logs()}")

    def epochs(self, job_id: str, attempt: int) -> list[int]:
        """The finetuning epochs that an attempt told of."""
        told = [e for e in self.events(job_id, EventType.METRIC) if e.attempt == attempt]
        return [e.data["epoch"] for e in told if e.data["stage"] == "finetune"]

    def child_of(self, job_id: str) -> int:
        """The process id of the job's child on this machine, which may have to start first."""
        return until(lambda: find_child(job_id), 30, lambda: f"the child of {job_id}: {self.logs()}")

    def logs(self) -> str:
        """The ends of all logs, for a failed test."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def keep(self, data: bytes) -> Path:
        """The bytes as a file of this plane's folder."""
        path = self.folder / "upload"
        path.write_bytes(data)
        return path
