"""The files from which another attempt can go on, each with its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from worker.work_folder import WorkFolder


class Checkpoint:
    """All plain files in `state` and `out`; each is read again only when it has changed."""

    def __init__(self, folder: WorkFolder) -> None:
        self._folder = folder
        self._digests: dict[tuple[Path, int, int, int], str] = {}

    def files(self) -> dict[str, str]:
        """SHA-256 by path in the work folder."""
        found = (path for place in (self._folder.state, self._folder.out) for path in sorted(place.iterdir()))
        return {path.relative_to(self._folder.root).as_posix(): self._digest(path) for path in found}

    def _digest(self, path: Path) -> str:
        facts = path.stat()
        version = (path, facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if version not in self._digests:
            with path.open("rb") as file:
                self._digests[version] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[version]
