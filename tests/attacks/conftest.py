"""Uploads go the way that every upload goes: a claim, a supervisor, a sandboxed child."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models_store.blobs import BlobStore
from models_store.database import Database
from models_store.datasets import DatasetRepository
from models_store.documents.job_spec import JobKind
from models_store.jobs import JobRepository
from models_store.models import ModelRepository
from models_store.projects import DEFAULT_PROJECT
from worker import supervisor
from worker.settings import WorkerSettings
from worker.supervisor import COPIES_WHILE_INSPECTING

MEMORY_BYTES = 512 * 2**20  # as a limit on the child's address space, which is more than it can ever touch
WORK_CPU_S = 2
START_CPU_S = 2  # Python and the libraries, before the file is opened: 1 s and less on an idle machine


@dataclass(frozen=True)
class Verdict:
    """What became of an upload."""

    state: str
    rejection: dict[str, Any]
    cpu_s: float  # of the child, from its start on
    stray_files: set[Path]


Upload = Callable[..., Verdict]


@pytest.fixture
def upload(sqlite_url: str, blobs: BlobStore, tmp_path: Path) -> Upload:
    """Upload and inspect: `upload(data, "model" | "dataset", format, **settings)`."""
    database = Database(sqlite_url)

    def run(data: bytes, kind: str, format: str, details: dict[str, Any] | None = None, **settings: Any) -> Verdict:
        file = tmp_path / "upload"
        file.write_bytes(data)
        blob = blobs.put_file(file)
        repository = ModelRepository if kind == "model" else DatasetRepository
        with database.of_project(DEFAULT_PROJECT).session() as session:
            row = repository(session).add("attack", format, blob.sha256, blob.size_bytes, blob.key, details)
            JobRepository(session).create(JobKind.INSPECT, {}, **{f"{kind}_id": row.id})
        with database.session() as session:
            claim = JobRepository(session).claim("test")
        assert claim is not None
        chosen = WorkerSettings(data_dir=tmp_path, **(_bounds(len(data)) | settings))
        before, cpu_before = _files(tmp_path), _cpu_s_of_children()
        supervisor.run(claim, database, blobs, chosen, threading.Event())
        cpu_s = _cpu_s_of_children() - cpu_before
        with database.session(read_only=True) as session:
            settled = repository(session).get(row.id)
        assert settled is not None
        print(f"{cpu_s:.2f} s of CPU time", settled.rejection)
        return Verdict(settled.state, settled.rejection or {}, cpu_s, _files(tmp_path) - before)

    return run


def _bounds(size_bytes: int) -> dict[str, Any]:
    """Limits that the kernel enforces: whatever an attack does, it does it within these."""
    # What a worker grants for the upload's own size comes off, so that 512 MB is all there is.
    memory = MEMORY_BYTES - COPIES_WHILE_INSPECTING * size_bytes
    return {"inspect_memory_bytes": memory, "inspect_cpu_s": START_CPU_S + WORK_CPU_S, "child_threads": 1}


def _cpu_s_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _files(folder: Path) -> set[Path]:
    """All files but those of the database and of the blob store."""
    ours = (folder / "blobs",)
    return {
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("espalier.db") and not path.is_relative_to(ours[0])
    }
