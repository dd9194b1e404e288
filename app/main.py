"""The API application: `uvicorn --factory app.main:create_app`, or `python -m app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool

from app import error_responses, errors, openapi
from app.access.caller import by_method, needs
from app.access.errors import ACCESS_ERRORS
from app.audit.endpoints import router as audit
from app.cross_site import refuse_cross_site
from app.datasets.endpoints import router as datasets
from app.docs.endpoints import router as docs
from app.doorbell import Doorbell
from app.head import HeadAsGet
from app.health.endpoints import router as health
from app.hooks.endpoints import router as hooks
from app.jobs.endpoints import router as jobs
from app.keys.endpoints import router as keys
from app.methods.endpoints import router as methods
from app.metrics.endpoints import router as metrics
from app.metrics.requests import RequestMetrics
from app.metrics.state import StateMetrics
from app.models.endpoints import router as models
from app.pipelines.endpoints import router as pipelines
from app.plane import Plane
from app.projects.endpoints import router as projects
from app.rate_limits import RateLimiter, TooManyRefusedKeys
from app.security_headers import SecurityHeaders
from app.settings import ApiSettings
from app.sharing.endpoints import making as making_links
from app.sharing.endpoints import opening as opening_links
from app.tus.endpoints import router as uploads
from app.tus.protocol import TusManners
from app.usage.endpoints import router as usage
from app.webhooks.endpoints import router as webhooks
from models_store.blobs import BlobStore
from models_store.database import Database
from models_store.documents.access import Scope

DESCRIPTION = """
Espalier makes convolutional networks smaller: upload a model, start a job, get a smaller ONNX model back together
with a report of what was measured.

1. **Upload a model**: `POST /v1/models`, an ONNX file. Keep the `id` of the answer.
2. Optionally **upload a dataset**: `POST /v1/datasets`, one folder of images per class in a zip or tar.
3. When both are `ready`, **start a job**: `POST /v1/jobs` with the ids and a budget.
4. **Follow it** at `/v1/jobs/{job_id}/events`, read `/v1/jobs/{job_id}/report.html`, and download `pruned.onnx` from
   `/v1/jobs/{job_id}/artifacts`.

Every error is an `application/problem+json` document (RFC 9457) with a stable `code`, and a `hint` that says what
to do.
"""

TAGS = [
    {"name": "models", "description": "Networks, as ONNX or as weights of a torchvision architecture."},
    {"name": "datasets", "description": "Images, with or without labels: for finetuning and for measuring accuracy."},
    {"name": "uploads", "description": "Large files in pieces (tus 1.0): an upload that breaks off is resumed."},
    {"name": "methods", "description": "What a job can be told to prune by: criteria, allocations and the rest."},
    {"name": "jobs", "description": "Pruning, from the request to the report."},
    {"name": "pipelines", "description": "Saved jobs with gates, and what starts them: CI."},
    {"name": "webhooks", "description": "Who is told what happens here, and a log of it."},
    {"name": "usage", "description": "What the project uses, and what it may."},
    {"name": "audit", "description": "Who changed what, when and from where."},
    {"name": "keys", "description": "What programs show to be let in, and what they may do."},
    {"name": "projects", "description": "Whom everything belongs to. For whoever runs the service."},
    {"name": "operation", "description": "For whoever runs the service."},
]


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """The application, on these settings or those of the environment. The database must have been migrated."""
    settings = settings or ApiSettings()
    app = FastAPI(
        title="Espalier",
        version=_version(),
        summary="Pruning convolutional networks as a service.",
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to where a proxy's users may not be able to follow
        lifespan=partial(_running, settings),
        generate_unique_id_function=_operation_id,
        dependencies=[Depends(refuse_cross_site)],
    )
    app.state.registry = CollectorRegistry()
    app.add_middleware(RequestMetrics, registry=app.state.registry)  # nearest to the routes, whose names it needs
    app.add_middleware(TusManners)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(HeadAsGet)
    error_responses.install(app)
    openapi.install(app, keyed=settings.keyed)
    common = (errors.InvalidRequest, errors.DatabaseUnavailable, errors.InternalError)
    keyed = errors.problems(*common, *ACCESS_ERRORS)
    for router in (models, datasets, uploads, methods, jobs, pipelines, webhooks):
        app.include_router(router, responses=keyed, dependencies=[Depends(by_method)])
    app.include_router(making_links, responses=keyed, dependencies=[Depends(needs(Scope.READ))])
    app.include_router(opening_links, responses=errors.problems(*common))  # these are signed
    app.include_router(usage, responses=keyed, dependencies=[Depends(by_method)])
    app.include_router(audit, responses=keyed, dependencies=[Depends(needs(Scope.ADMIN))])
    app.include_router(keys, responses=keyed, dependencies=[Depends(needs(Scope.ADMIN))])
    app.include_router(projects, responses=keyed, dependencies=[Depends(needs(Scope.INSTANCE))])
    app.include_router(hooks, responses=errors.problems(*common))  # these are signed
    if settings.metrics_open or not settings.keyed:
        app.include_router(metrics)
    else:
        app.include_router(metrics, responses=keyed, dependencies=[Depends(needs(Scope.INSTANCE))])
    app.include_router(health)
    app.include_router(docs)
    return app


@asynccontextmanager
async def _running(settings: ApiSettings, app: FastAPI) -> AsyncIterator[None]:
    """Opens what all requests share, and closes it after the last one."""
    per_minute, refused = settings.requests_per_minute, settings.refused_keys_per_minute
    plane = Plane(
        settings=settings,
        database=Database(settings.database_url),
        blobs=BlobStore.from_settings(settings),
        doorbell=Doorbell(settings.redis_url),
        rates=RateLimiter(per_minute, settings.redis_url) if per_minute else None,
        refused_keys=RateLimiter(refused, settings.redis_url, TooManyRefusedKeys) if refused else None,
    )
    await run_in_threadpool(plane.blobs.remove_abandoned)  # what crashes left on this machine
    app.state.plane = plane
    app.state.registry.register(StateMetrics(plane))
    yield
    plane.doorbell.close()
    plane.database.dispose()


def _operation_id(route: APIRoute) -> str:
    """The endpoint's own name: what generated clients call their methods."""
    return route.name


def _version() -> str:
    try:
        return version("espalier")
    except PackageNotFoundError:  # run from a checkout
        return "0"
