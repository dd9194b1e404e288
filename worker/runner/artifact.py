"""A file that the job hands out, as the report lists it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models_store.documents.report import Artifact
from worker.work_folder import media_type


def describe(path: Path) -> Artifact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(name=path.name, media_type=media_type(path), size_bytes=path.stat().st_size, sha256=digest)
