"""Sweeps: a parent that takes no worker while its points run as prune jobs of their own."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store.documents.event import JobError
from models_store.documents.job import JobState
from models_store.documents.job_spec import Budget, JobKind
from models_store.documents.report import LatencyRow, Report
from models_store.documents.sweep_report import Measured, SweepPoint
from models_store.tables import Job, JobArtifact, JobReport

POINTS = "points"
"""The stage in which a sweep waits for its points."""
WAITING = datetime(9999, 1, 1, tzinfo=UTC)
"""`claimable_at` of a sweep whose points have not all ended: no worker takes it before."""
MODEL = "pruned.onnx"


def points(session: Session, sweep_id: str) -> Sequence[SweepPoint]:
    """The points of a sweep in the order in which its budgets were given."""
    rows = session.execute(
        select(Job, JobReport.document, JobArtifact.sha256)
        .outerjoin(JobReport, JobReport.job_id == Job.id)
        .outerjoin(JobArtifact, (JobArtifact.job_id == Job.id) & (JobArtifact.name == MODEL))
        .where(Job.parent_id == sweep_id, Job.kind == JobKind.PRUNE.value)
        .order_by(Job.id)
    ).all()
    return [
        _point(job, Report.model_validate(document) if document is not None else None, sha256)
        for job, document, sha256 in rows
    ]


def _point(job: Job, report: Report | None, sha256: str | None) -> SweepPoint:
    budget = Budget.model_validate(job.spec["budget"])
    reported = job.state is JobState.SUCCEEDED and report is not None
    return SweepPoint(
        job_id=job.id,
        budget=budget,
        state=job.state,
        error=JobError.model_validate(job.error) if job.error else None,
        measured=_measured(report, budget) if reported and report is not None else None,
        model=f"/v1/jobs/{job.id}/artifacts/{MODEL}" if reported else None,
        model_sha256=sha256 if reported else None,
        model_name=report.model_name if report else None,
        original_sha256=report.model_sha256 if report else None,
        dataset_sha256=report.dataset_sha256 if report else None,
    )


def _measured(report: Report, budget: Budget) -> Measured | None:
    if report.accuracy is None:
        return None
    return Measured(
        original=report.original,
        pruned=report.pruned,
        original_accuracy=report.accuracy.original,
        accuracy=report.accuracy.final,
        latency=_latency(report, budget),
        budget=report.budget,
    )


def _latency(report: Report, budget: Budget) -> LatencyRow | None:
    wanted = (budget.latency_batch_size, budget.latency_threads)
    rows = [row for row in report.latency if (row.batch_size, row.threads) == wanted]
    return next(iter((*rows, *report.latency)), None)
