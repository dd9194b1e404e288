"""Pipelines and their runs."""

import base64
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from models_store import pipeline_runs
from models_store.documents.pipeline import RunState, Trigger
from models_store.identifiers import new_id
from models_store.shared_links import HTML_REPORT, shared_path
from models_store.spans import ALWAYS, Span
from models_store.tables import HookEvent, InputState, Job, Model, Pipeline, PipelineRun, Project
from models_store.webhooks import SECRET_BYTES


class PipelineRepository:
    """Pipelines and their runs, in a session of one project. Never commits: the caller's session does."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(
        self,
        name: str,
        template: dict[str, Any],
        gates: list[dict[str, Any]],
        model_name: str | None,
        branches: Sequence[str],
        report_link_s: int,
    ) -> Pipeline:
        """A new pipeline with a secret of its own for inbound hooks."""
        pipeline = Pipeline(
            id=new_id("pip"),
            name=name,
            template=template,
            gates=gates,
            model_name=model_name,
            branches=list(branches),
            report_link_s=report_link_s,
            secret="whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode(),
        )
        self._session.add(pipeline)
        self._session.flush()
        return pipeline

    def owner(self, id: str) -> str | None:
        """The project of a pipeline; None where there is no such pipeline, or the project is disabled."""
        query = select(Project.id).join(Pipeline, Pipeline.project_id == Project.id)
        return self._session.scalar(query.where(Pipeline.id == id, Project.enabled))

    def get(self, id: str) -> Pipeline | None:
        return self._session.get(Pipeline, id)

    def list(
        self, after: str | None = None, limit: int = 50, name: str | None = None, span: Span = ALWAYS
    ) -> Sequence[Pipeline]:
        """Newest first; `after` is the id of the last row of the page before."""
        query = select(Pipeline)
        if after is not None:
            query = query.where(Pipeline.id < after)
        if name is not None:
            query = query.where(Pipeline.name == name)
        query = query.where(*span.holds(Pipeline.created_at)).order_by(Pipeline.id.desc()).limit(limit)
        return self._session.scalars(query).all()

    def delete(self, pipeline: Pipeline) -> None:
        """With its runs; their jobs stay."""
        self._session.delete(pipeline)
        self._session.flush()

    def newest_model(self, name: str) -> str | None:
        """The id of the newest ready model of that name."""
        query = select(Model.id).where(Model.name == name, Model.state == InputState.READY)
        return self._session.scalar(query.order_by(Model.id.desc()).limit(1))

    def add_run(self, pipeline: Pipeline, job: Job, trigger: Trigger, public_url: str, *, keyed: bool) -> PipelineRun:
        """A run of this job, which has just been created; its commit is told.

        `public_url`: where users find this service, if that is known; `keyed`: whether it asks them for keys.
        """
        shared = keyed and pipeline.report_link_s > 0
        path = shared_path(job.id, HTML_REPORT) if shared else f"/v1/jobs/{job.id}/{HTML_REPORT}"
        run = PipelineRun(
            id=new_id("run"),
            pipeline_id=pipeline.id,
            job_id=job.id,
            trigger=trigger.model_dump(mode="json"),
            verdicts=[],
            target_url=f"{public_url.rstrip('/')}{path}" if public_url else None,
        )
        self._session.add(run)
        self._session.flush()
        pipeline_runs.tell_commit(self._session, pipeline, run)
        return run

    def run(self, pipeline_id: str, id: str) -> PipelineRun | None:
        query = select(PipelineRun).where(PipelineRun.id == id, PipelineRun.pipeline_id == pipeline_id)
        return self._session.scalar(query)

    def runs(
        self,
        pipeline_id: str,
        after: str | None = None,
        limit: int = 50,
        state: RunState | None = None,
        span: Span = ALWAYS,
    ) -> Sequence[PipelineRun]:
        """Newest first; `after` is the id of the last row of the page before."""
        query = select(PipelineRun).where(PipelineRun.pipeline_id == pipeline_id)
        if after is not None:
            query = query.where(PipelineRun.id < after)
        if state is not None:
            query = query.where(PipelineRun.state == state)
        query = query.where(*span.holds(PipelineRun.created_at)).order_by(PipelineRun.id.desc()).limit(limit)
        return self._session.scalars(query).all()

    def run_of_event(self, pipeline: Pipeline, key: str) -> PipelineRun | None:
        """The run that an inbound event has started already. Holds the pipeline, so that no other request starts it."""
        self._session.refresh(pipeline, with_for_update=True)
        event = self._session.get(HookEvent, (pipeline.id, key))
        return self._session.get(PipelineRun, event.run_id) if event else None

    def remember_event(self, pipeline: Pipeline, key: str, run: PipelineRun) -> None:
        """That the event has started this run."""
        self._session.add(HookEvent(pipeline_id=pipeline.id, key=key, run_id=run.id))
        self._session.flush()
