"""How a run of a pipeline ends: with its job, in the same transaction, by its gates; and goes on where its job is tried
again."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store import commit_status, gates
from models_store.documents.job import JobState
from models_store.documents.pipeline import Gate, GateVerdict, RunState, Trigger
from models_store.documents.report import Report
from models_store.documents.webhook import Happening
from models_store.shared_links import HTML_REPORT, SharedLinkRepository, shared_path
from models_store.tables import Job, JobReport, Pipeline, PipelineRun
from models_store.webhooks import WebhookRepository

TOLD = {
    RunState.PASSED: Happening.RUN_PASSED,
    RunState.FAILED: Happening.RUN_FAILED,
    RunState.ERRORED: Happening.RUN_ERRORED,
}


def settle(session: Session, job: Job, at: datetime) -> None:
    """End the run that this job belongs to, if there is one; tell webhooks and the commit."""
    run = session.scalar(select(PipelineRun).where(PipelineRun.job_id == job.id, PipelineRun.finished_at.is_(None)))
    if run is None:
        return
    pipeline = session.get_one(Pipeline, run.pipeline_id)
    verdicts, run.state, run.reason = _judged(session, job, [Gate.model_validate(gate) for gate in pipeline.gates])
    run.verdicts = [verdict.model_dump(mode="json") for verdict in verdicts]
    run.finished_at = at
    path = f"/v1/pipelines/{pipeline.id}/runs/{run.id}"
    page = report_url(session, pipeline, run) if job.state is JobState.SUCCEEDED else None
    data = {
        "id": run.id,
        "pipeline_id": pipeline.id,
        "job_id": job.id,
        "state": str(run.state),
        "reason": run.reason,
        "trigger": run.trigger,
        "links": {"self": path, "job": f"/v1/jobs/{job.id}"} | ({"report_page": page} if page else {}),
    }
    WebhookRepository(session).tell(pipeline.project_id, TOLD[run.state], at, data)
    tell_commit(session, pipeline, run)


def reopen(session: Session, job: Job) -> None:
    """Have the run that ended without a report go on with its job, which waits again; tell the commit."""
    query = select(PipelineRun).where(PipelineRun.job_id == job.id, PipelineRun.state == RunState.ERRORED)
    run = session.scalar(query)
    if run is None:
        return
    run.state, run.reason, run.finished_at = RunState.RUNNING, "", None
    tell_commit(session, session.get_one(Pipeline, run.pipeline_id), run)


def tell_commit(session: Session, pipeline: Pipeline, run: PipelineRun) -> None:
    """Put the run's state on the commit that started it, where the pipeline says with what token."""
    trigger = Trigger.model_validate(run.trigger)
    repository = pipeline.status_repository or trigger.repository
    host = WebhookRepository(session).host(pipeline.status_endpoint_id) if pipeline.status_endpoint_id else None
    if host is None or trigger.sha is None or not repository:
        return
    status = commit_status.Status(
        host="github" if host.kind == "github" else "gitlab",
        base_url=host.url,
        repository=repository,
        sha=trigger.sha,
        state=run.state,
        context=pipeline.status_context,
        description=run.reason or "The job is under way.",
        target_url=report_url(session, pipeline, run),
    )
    WebhookRepository(session).tell_status(host.id, run.id, status.url(), status.body())


def report_url(session: Session, pipeline: Pipeline, run: PipelineRun) -> str | None:
    """Where a browser finds the report, signed anew where it would be asked for a key; None where nobody knows."""
    if run.target_url is None or run.job_id is None:
        return run.target_url
    base, shared, _ = run.target_url.partition(shared_path(run.job_id, HTML_REPORT))
    if not shared:
        return run.target_url
    return base + SharedLinkRepository(session).sign(run.job_id, HTML_REPORT, pipeline.report_link_s)[1]


def _judged(session: Session, job: Job, wanted: Sequence[Gate]) -> tuple[list[GateVerdict], RunState, str]:
    """Verdicts, state and one line that says why."""
    document = session.scalar(select(JobReport.document).where(JobReport.job_id == job.id))
    if job.state is not JobState.SUCCEEDED or document is None:
        why = job.error["message"] if job.error else f"it was {job.state}"
        return [], RunState.ERRORED, f"The job has no report: {why}"
    verdicts = gates.judge(wanted, Report.model_validate(document))
    failed = [verdict.reason for verdict in verdicts if not verdict.passed]
    if failed:
        return verdicts, RunState.FAILED, f"{len(failed)} of {len(verdicts)} gates failed: {'; '.join(failed)}"
    return verdicts, RunState.PASSED, f"All {len(verdicts)} gates passed." if verdicts else "The job succeeded."
