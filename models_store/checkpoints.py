"""Checkpoints of jobs: what another attempt goes on from.

The files are blobs in a scope of the job's own, written before the row that names them. A worker calls
`JobRepository.hold` first, in the same transaction: so only the attempt in progress can replace a checkpoint.
"""

from collections.abc import Mapping

from sqlalchemy import delete
from sqlalchemy.orm import Session

from models_store.tables import JobCheckpoint


def scope(job_id: str) -> str:
    """Of the blobs of a job's checkpoints."""
    return f"checkpoints/{job_id}/"


class CheckpointRepository:
    """All SQL on checkpoints: one for each job at most. Never commits: the caller's session does."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def files(self, job_id: str) -> dict[str, str]:
        """Blob keys by path; none where the job has no checkpoint."""
        found = self._session.get(JobCheckpoint, job_id)
        return {} if found is None else dict(found.files)

    def keep(self, job_id: str, attempt: int, files: Mapping[str, str]) -> None:
        """Replace the job's checkpoint."""
        self._session.merge(JobCheckpoint(job_id=job_id, attempt=attempt, files=dict(files)))
        self._session.flush()

    def forget(self, job_id: str) -> None:
        """The next attempt begins at the beginning."""
        self._session.execute(delete(JobCheckpoint).where(JobCheckpoint.job_id == job_id))
