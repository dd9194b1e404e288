"""/v1/models."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query, Request, Response
from sqlalchemy.orm import Session

from app import names
from app.dependencies import ReadSession, WriteSession
from app.errors import problems
from app.idempotency import IDEMPOTENCY_ERRORS, Creation, CreationDep
from app.links import links
from app.models import service
from app.models.schemas import ModelForm, ModelGraph, ModelPage, ModelParameters, ModelView
from app.names import Name
from app.pages import After, Filter, Limit, SpanDep
from app.uploads import digests
from app.uploads.door import ModelFormat
from app.uploads.errors import UPLOAD_ERRORS
from app.uploads.incoming import ReceivedFile
from app.uploads.receive import IncomingFileDep, ReprDigest, bare_body, form_body, receive_body, receive_form
from models_store.tables import InputState

router = APIRouter(prefix="/v1/models", tags=["models"])

# One parameter for ids and names: OpenAPI takes paths that differ in a parameter's name only for the same path.
ModelId = Annotated[
    str, Path(alias="model", description="The model's id.", examples=["mdl_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
]
ModelName = Annotated[Name, Path(alias="model")]
MODEL_FILE = "An ONNX file, a zip for format onnx_zip, or safetensors weights for format torchvision."
UPLOAD_RESPONSES = links(201, "model", "get_model", "get_model_graph", "delete_model") | problems(
    *UPLOAD_ERRORS, *IDEMPOTENCY_ERRORS
)


@dataclass(frozen=True)
class ModelUpload:
    """A file that has arrived whole, and what was said about it."""

    name: str
    parameters: ModelParameters
    file: ReceivedFile

    def identity(self) -> dict[str, Any]:
        """What tells this upload from another one."""
        return {**self.parameters.model_dump(), "name": self.name, "sha256": self.file.sha256}


async def _from_form(request: Request, incoming: IncomingFileDep) -> ModelUpload:
    form, file, filename = await receive_form(request, incoming, ModelForm)
    return ModelUpload(form.name or names.from_filename(filename, "model"), form, file)


async def _from_body(
    request: Request,
    name: ModelName,
    parameters: Annotated[ModelParameters, Query()],
    incoming: IncomingFileDep,
    repr_digest: ReprDigest = None,
) -> ModelUpload:
    return ModelUpload(name, parameters, await receive_body(request, incoming, repr_digest))


@router.post(
    "",
    status_code=201,
    response_model=ModelView,
    summary="Upload a model",
    openapi_extra=form_body(ModelForm, MODEL_FILE),
    responses=UPLOAD_RESPONSES,
)
def upload_model(
    upload: Annotated[ModelUpload, Depends(_from_form)],
    creation: CreationDep,
    background: BackgroundTasks,
) -> Response:
    """Send an ONNX file, or a torchvision architecture's weights as safetensors; its inspection begins at once."""
    return _add(upload, creation, background)


@router.put(
    "/{model}",
    status_code=201,
    response_model=ModelView,
    summary="Upload a model as bare bytes",
    openapi_extra=bare_body(MODEL_FILE),
    responses=UPLOAD_RESPONSES,
)
def put_model(
    upload: Annotated[ModelUpload, Depends(_from_body)],
    creation: CreationDep,
    background: BackgroundTasks,
) -> Response:
    """The same for `curl -T model.onnx`: the body is the file; a Repr-Digest header is checked."""
    return _add(upload, creation, background)


def _add(upload: ModelUpload, creation: Creation, background: BackgroundTasks) -> Response:
    digests.verify(upload.file, upload.parameters.sha256)
    if (earlier := creation.earlier_answer(upload.identity())) is not None:
        return earlier
    blob = service.keep(upload.file, upload.parameters, creation.plane.blobs)

    def create(session: Session) -> tuple[ModelView, str]:
        model = service.register(session, upload.name, upload.parameters, blob)
        return ModelView.of(model), f"/v1/models/{model.id}"

    background.add_task(creation.plane.doorbell.ring)  # runs after the commit and the answer
    return creation.once(upload.identity(), create)


@router.get("", summary="List models")
def list_models(
    session: ReadSession,
    span: SpanDep,
    limit: Limit = 50,
    after: After = None,
    state: InputState | None = None,
    format: ModelFormat | None = None,
    name: Filter = None,
) -> ModelPage:
    """Newest first, a page at a time."""
    return ModelPage.of(
        [
            ModelView.of(model)
            for model in service.page(session, after, limit + 1, state=state, format=format, name=name, span=span)
        ],
        limit,
    )


@router.get("/{model}", summary="Look at a model", responses=problems(service.ModelNotFound))
def get_model(model_id: ModelId, session: ReadSession) -> ModelView:
    """Its state, and what the inspection found or why it refused."""
    return ModelView.of(service.get(session, model_id))


@router.get(
    "/{model}/graph",
    summary="Look at a model's layers",
    responses=problems(service.ModelNotFound, service.ModelNotReady, service.ModelRejected),
)
def get_model_graph(model_id: ModelId, session: ReadSession) -> ModelGraph:
    """Each layer with its channels, its cost, what it is coupled to, and why it cannot be pruned where it cannot."""
    return ModelGraph.of(model_id, service.inspection(session, model_id))


@router.delete(
    "/{model}",
    status_code=204,
    summary="Delete a model",
    responses=problems(service.ModelNotFound, service.ModelInUse),
)
def delete_model(model_id: ModelId, session: WriteSession) -> None:
    """Jobs that have ended keep their reports and artifacts."""
    service.delete(session, model_id)
