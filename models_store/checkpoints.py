"""Checkpoints of jobs: what another attempt goes on from.

The files are blobs in a scope of the job's own, written before the row that names them. A worker calls
`JobRepository.hold` first, in the same transaction: so only the attempt in progress can replace a checkpoint.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from models_store.database_time import database_now
from models_store.documents.job import JobState
from models_store.tables import Job, JobCheckpoint

SCOPES = "checkpoints"


def scope(job_id: str) -> str:
    """Of the blobs of a job's checkpoints."""
    return f"{SCOPES}/{job_id}/"


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

    def needed(self, job_ids: Collection[str], retention_s: float) -> set[str]:
        """Those jobs whose checkpoint an attempt may still go on from: not ended, or ended badly and lately."""
        lately = Job.finished_at > database_now(-retention_s)
        query = select(Job.id).where(
            Job.id.in_(job_ids), or_(Job.finished_at.is_(None), lately & (Job.state != JobState.SUCCEEDED))
        )
        return set(self._session.scalars(query))

    def forget(self, job_id: str) -> None:
        """The next attempt begins at the beginning."""
        self._session.execute(delete(JobCheckpoint).where(JobCheckpoint.job_id == job_id))
