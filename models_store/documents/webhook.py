"""What is told to webhook endpoints."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from models_store.documents.base import Document
from models_store.documents.timestamp import Timestamp


class Happening(StrEnum):
    """What an endpoint may ask to be told."""

    JOB_RUNNING = "job.running"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    MODEL_READY = "model.ready"
    MODEL_REJECTED = "model.rejected"
    DATASET_READY = "dataset.ready"
    DATASET_REJECTED = "dataset.rejected"
    RUN_PASSED = "pipeline_run.passed"
    RUN_FAILED = "pipeline_run.failed"
    RUN_ERRORED = "pipeline_run.errored"
    WEBHOOK_TEST = "webhook.test"


class DeliveryState(StrEnum):
    """`pending` until an endpoint took it or the last attempt failed."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Notice(Document):
    """The body of a delivery (Standard Webhooks): what happened, when, and to what."""

    type: Happening
    timestamp: Timestamp
    data: dict[str, Any] = Field(description="The thing it happened to: ids, state, links; fetch the rest from there.")
