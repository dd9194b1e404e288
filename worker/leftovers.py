"""Work folders that a killed worker left behind."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from models_store.database import Database
from models_store.jobs import JobRepository

logger = logging.getLogger(__name__)


def remove_leftovers(database: Database, work_folder: Path) -> int:
    """Delete the folders of attempts that are no longer in progress; how many.

    Another worker of this machine may share `work_folder`: its attempts are current in their rows, and stay.
    """
    if not work_folder.is_dir():
        return 0
    removed = 0
    for job_folder in sorted(work_folder.iterdir()):
        with database.session(read_only=True) as session:
            job = JobRepository(session).get(job_folder.name)
        current = str(job.attempt) if job is not None and job.lease_expires_at is not None else None
        for attempt_folder in sorted(job_folder.iterdir()):
            if attempt_folder.name != current:
                shutil.rmtree(attempt_folder)
                removed += 1
        if current is None:
            job_folder.rmdir()
    if removed:
        logger.info("removed %s work folders that killed workers had left", removed)
    return removed
