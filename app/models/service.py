"""What happens to models: received, listed, looked into, deleted."""

import re
from collections.abc import Sequence
from http import HTTPStatus

from sqlalchemy.orm import Session

from app.errors import ApiError
from app.models.schemas import ModelParameters
from app.uploads import digests, door
from app.uploads.incoming import ReceivedFile
from models_store.blobs import Blob, BlobStore
from models_store.documents.inspection import ModelInspection, Rejection
from models_store.documents.job_spec import JobKind
from models_store.errors import InUse
from models_store.jobs import JobRepository
from models_store.models import ModelRepository
from models_store.spans import Span
from models_store.tables import InputState, Model

MODEL_ID = re.compile(r"mdl_[0-9a-f]{32}")
INSPECTION_DEADLINE_S = 3600


class ModelNotFound(ApiError):
    """There is no such model."""

    status = HTTPStatus.NOT_FOUND
    code = "model_not_found"
    hint = "GET /v1/models lists the models with their ids."


class ModelNotReady(ApiError):
    """The model is still being inspected."""

    status = HTTPStatus.CONFLICT
    code = "model_not_ready"
    hint = "Poll GET /v1/models/{id} until `state` is `ready`, then try again."


class ModelRejected(ApiError):
    """The model was refused by its inspection."""

    status = HTTPStatus.CONFLICT
    code = "model_rejected"
    hint = "GET /v1/models/{id} says why; upload a corrected one."


class ModelInUse(ApiError):
    """A job that has not ended needs the model."""

    status = HTTPStatus.CONFLICT
    code = "model_in_use"
    hint = "Cancel the job with POST /v1/jobs/{id}/cancel, or wait for its end."


def keep(file: ReceivedFile, parameters: ModelParameters, blobs: BlobStore) -> Blob:
    """Check an upload at the door and put its bytes away; slow for large files, so before any transaction."""
    digests.verify(file, parameters.sha256)
    door.check_model(file.path, parameters.format)
    return blobs.adopt(file.path, sha256=file.sha256)


def register(session: Session, name: str, parameters: ModelParameters, blob: Blob) -> Model:
    """The row of a new model, and the job that inspects it."""
    details = parameters.details()
    model = ModelRepository(session).add(
        name=name,
        format=parameters.format,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
        blob_key=blob.key,
        details=details.model_dump(mode="json") if details else None,
    )
    JobRepository(session).create(JobKind.INSPECT, {}, model_id=model.id, deadline_s=INSPECTION_DEADLINE_S)
    return model


def page(
    session: Session,
    after: str | None,
    limit: int,
    *,
    state: InputState | None,
    format: str | None,
    name: str | None,
    span: Span,
) -> Sequence[Model]:
    return ModelRepository(session).list(after, limit, state, format, name, span)


def get(session: Session, model_id: str) -> Model:
    """Raises ModelNotFound."""
    model = ModelRepository(session).get(model_id) if MODEL_ID.fullmatch(model_id) else None
    if model is None:
        raise ModelNotFound(f"There is no model {model_id}.")
    return model


def get_ready(session: Session, model_id: str) -> Model:
    """A model that jobs may use. Raises ModelNotFound, ModelNotReady, ModelRejected."""
    model = get(session, model_id)
    if model.state is InputState.INSPECTING:
        raise ModelNotReady(f"{model_id} is still being inspected.")
    if model.state is InputState.REJECTED:
        rejection = Rejection.model_validate(model.rejection)
        raise ModelRejected(f"{model_id} was rejected: {rejection.message}", rejection.hint)
    return model


def inspection(session: Session, model_id: str) -> ModelInspection:
    """Raises as `get_ready`."""
    return ModelInspection.model_validate(get_ready(session, model_id).inspection)


def delete(session: Session, model_id: str) -> None:
    """Raises ModelNotFound, ModelInUse. Reports and artifacts of ended jobs stay."""
    get(session, model_id)
    try:
        ModelRepository(session).delete(model_id)
    except InUse as error:
        raise ModelInUse(f"{error}.") from error
