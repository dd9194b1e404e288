"""Uploads go the way that every upload goes: a claim, a supervisor, a sandboxed child."""

from __future__ import annotations

import threading
import time
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
from worker import supervisor
from worker.settings import WorkerSettings


@dataclass(frozen=True)
class Verdict:
    """What became of an upload."""

    state: str
    rejection: dict[str, Any]
    seconds: float
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
        with database.session() as session:
            row = repository(session).add("attack", format, blob.sha256, blob.size_bytes, blob.key, details)
            JobRepository(session).create(JobKind.INSPECT, {}, **{f"{kind}_id": row.id})
        with database.session() as session:
            claim = JobRepository(session).claim("test")
        assert claim is not None
        chosen = WorkerSettings(data_dir=tmp_path, **settings)
        before = _files(tmp_path)
        started = time.monotonic()
        supervisor.run(claim, database, blobs, chosen, threading.Event())
        seconds = time.monotonic() - started
        with database.session(read_only=True) as session:
            settled = repository(session).get(row.id)
        assert settled is not None
        return Verdict(settled.state, settled.rejection or {}, seconds, _files(tmp_path) - before)

    return run


def _files(folder: Path) -> set[Path]:
    """All files but those of the database and of the blob store."""
    ours = (folder / "blobs",)
    return {
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("espalier.db") and not path.is_relative_to(ours[0])
    }
