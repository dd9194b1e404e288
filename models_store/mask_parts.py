"""Parts of a job's random masks: jobs of their own, whose scores the job goes on with."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.documents.job_spec import JobKind
from models_store.documents.mask_part import MaskPart, MaskScores
from models_store.tables import Job, JobReport


def of_job(session: Session, job_id: str) -> Sequence[MaskPart]:
    """All parts that the job has had, whatever became of them."""
    query = select(Job.spec).where(Job.parent_id == job_id, Job.kind == JobKind.MASKS.value).order_by(Job.id)
    return [MaskPart.model_validate(spec) for spec in session.scalars(query)]


def scores(session: Session, job_id: str) -> Sequence[MaskScores]:
    """What its parts found, as far as they succeeded."""
    query = select(JobReport.document).join(Job, Job.id == JobReport.job_id)
    query = query.where(Job.parent_id == job_id, Job.kind == JobKind.MASKS.value).order_by(Job.id)
    return [MaskScores.model_validate(document) for document in session.scalars(query)]
