"""What happens to pipelines: saved, run, judged."""

import re
from collections.abc import Sequence
from http import HTTPStatus

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.errors import ApiError
from app.jobs import service as jobs
from app.jobs.suitability import fixed_batch
from app.models import service as models
from app.pipelines.schemas import PUBLIC_HOSTS, NewPipeline, NewRun
from app.settings import ApiSettings
from app.webhooks.service import check_target
from models_store.documents.faults import sentences
from models_store.documents.inspection import DatasetInspection
from models_store.documents.job_spec import DataKind, JobSpec
from models_store.documents.pipeline import Gate, RunState, Trigger
from models_store.documents.report import Report
from models_store.hopeless_gates import not_judged
from models_store.jobs import JobRepository
from models_store.pipelines import PipelineRepository
from models_store.spans import Span
from models_store.tables import Pipeline, PipelineRun, WebhookEndpoint
from models_store.webhooks import WebhookRepository

PIPELINE_ID = re.compile(r"pip_[0-9a-f]{32}")
RUN_ID = re.compile(r"run_[0-9a-f]{32}")


class PipelineNotFound(ApiError):
    """There is no such pipeline."""

    status = HTTPStatus.NOT_FOUND
    code = "pipeline_not_found"
    hint = "GET /v1/pipelines lists the pipelines with their ids."


class RunNotFound(ApiError):
    """The pipeline has no such run."""

    status = HTTPStatus.NOT_FOUND
    code = "run_not_found"
    hint = "GET /v1/pipelines/{id}/runs lists the runs with their ids."


class NoModel(ApiError):
    """The run has no model."""

    status = HTTPStatus.CONFLICT
    code = "no_model"
    hint = "Send `model_id` with the run, or upload a model of the pipeline's `model_name` and wait until it is ready."


class UnsuitableInputs(ApiError):
    """The pipeline's job does not suit what the run brings along."""

    status = HTTPStatus.CONFLICT
    code = "unsuitable_inputs"
    hint = "Send a dataset with the run, or choose methods that need none in the pipeline."


RUN_ERRORS = (PipelineNotFound, NoModel, UnsuitableInputs)


def create(session: Session, new: NewPipeline, settings: ApiSettings) -> tuple[Pipeline, WebhookEndpoint | None]:
    """With the host that is told of commits, if any. Raises TargetNotAllowed."""
    pipeline = PipelineRepository(session).add(
        new.name,
        new.job.model_dump(mode="json"),
        [gate.model_dump(mode="json") for gate in new.gates],
        new.model_name,
        new.branches,
        new.report_link_s,
    )
    status = new.commit_status
    if status is None:
        return pipeline, None
    base_url = status.base_url or PUBLIC_HOSTS[status.host]
    check_target(base_url, settings)
    host = WebhookRepository(session).add_host(status.host, base_url, status.token)
    pipeline.status_endpoint_id = host.id
    pipeline.status_repository = status.repository
    pipeline.status_context = status.context or f"espalier/{new.name}"[:200]
    session.flush()
    return pipeline, host


def page(session: Session, after: str | None, limit: int, name: str | None, span: Span) -> Sequence[Pipeline]:
    return PipelineRepository(session).list(after, limit, name, span)


def host_of(session: Session, pipeline: Pipeline) -> WebhookEndpoint | None:
    """Who is told of commits."""
    return WebhookRepository(session).host(pipeline.status_endpoint_id) if pipeline.status_endpoint_id else None


def get(session: Session, pipeline_id: str) -> Pipeline:
    """Raises PipelineNotFound."""
    known = PIPELINE_ID.fullmatch(pipeline_id)
    pipeline = PipelineRepository(session).get(pipeline_id) if known else None
    if pipeline is None:
        raise PipelineNotFound(f"There is no pipeline {pipeline_id}.")
    return pipeline


def delete(session: Session, pipeline_id: str) -> None:
    """With its runs; their jobs stay. Raises PipelineNotFound."""
    pipeline = get(session, pipeline_id)
    host = host_of(session, pipeline)
    PipelineRepository(session).delete(pipeline)
    if host is not None:
        session.delete(host)
        session.flush()


def start(session: Session, pipeline: Pipeline, new: NewRun, trigger: Trigger, settings: ApiSettings) -> PipelineRun:
    """A run and its job. Raises NoModel, UnsuitableInputs, and what the creation of the job raises."""
    repository = PipelineRepository(session)
    newest = repository.newest_model(pipeline.model_name) if pipeline.model_name else None
    model_id = new.model_id or pipeline.template["model_id"] or newest
    if model_id is None:
        wanted = f"no model named {pipeline.model_name} is ready" if pipeline.model_name else "none was named"
        raise NoModel(f"{pipeline.id} cannot run: {wanted}.")
    body = {**pipeline.template, "model_id": model_id}
    body["label"] = body["label"] or pipeline.name
    if new.dataset_id is not None:
        body["dataset_id"] = new.dataset_id
    try:
        spec = JobSpec.model_validate(body)
    except ValidationError as error:
        raise UnsuitableInputs("; ".join(sentences(error.errors()))) from error
    _refuse_unjudged(session, pipeline, spec)
    job = jobs.create(session, spec)
    return repository.add_run(pipeline, job, trigger, settings.public_url, keyed=settings.keyed)


def _refuse_unjudged(session: Session, pipeline: Pipeline, spec: JobSpec) -> None:
    """Raises UnsuitableInputs where a gate is about what will not be measured on the run's data or of its model, and
    what `get_ready` of models and datasets raises."""
    fixed = fixed_batch(models.inspection(session, spec.model_id))
    data: DataKind = "none"
    if spec.dataset_id is not None:
        dataset = DatasetInspection.model_validate(datasets.get_ready(session, spec.dataset_id).inspection)
        data = "labels" if dataset.classes and spec.data.labels else "images"
    faults = list(not_judged([Gate.model_validate(gate) for gate in pipeline.gates], data, fixed))
    if faults:
        told = "; ".join(sentences({"loc": place, "msg": text} for place, text in faults))
        raise UnsuitableInputs(f"{told}.", "Send a suitable dataset or model with the run, or leave these gates out.")


def runs(
    session: Session, pipeline_id: str, after: str | None, limit: int, state: RunState | None, span: Span
) -> Sequence[PipelineRun]:
    """Raises PipelineNotFound."""
    pipeline = get(session, pipeline_id)
    return PipelineRepository(session).runs(pipeline.id, after, limit, state, span)


def run(session: Session, pipeline_id: str, run_id: str) -> PipelineRun:
    """Raises PipelineNotFound, RunNotFound."""
    pipeline = get(session, pipeline_id)
    known = RUN_ID.fullmatch(run_id)
    found = PipelineRepository(session).run(pipeline.id, run_id) if known else None
    if found is None:
        raise RunNotFound(f"{pipeline_id} has no run {run_id}.")
    return found


def report(session: Session, run: PipelineRun) -> Report | None:
    """What its job measured, where that succeeded and is still there."""
    document = JobRepository(session).report(run.job_id) if run.job_id else None
    return Report.model_validate(document) if document else None
