"""What is answered where a project has reached a limit."""

import math
from http import HTTPStatus

from app.errors import ApiError
from models_store.errors import QuotaExceeded

SEE = "GET /v1/usage shows what is used and allowed; whoever runs the service can allow more."


class StoredBytesExceeded(ApiError):
    """The project may not store that much."""

    status = HTTPStatus.FORBIDDEN
    code = "quota_stored_bytes"
    hint = f"Delete models, datasets, uploads or jobs that are no longer needed. {SEE}"


class TooManyJobs(ApiError):
    """The project has as many unfinished jobs as it may."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "quota_unfinished_jobs"
    hint = f"Wait until one has ended, or cancel one. {SEE}"


class JobMinutesSpent(ApiError):
    """The project has used its job minutes of this month."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "quota_job_minutes"
    hint = f"Wait as long as Retry-After says. {SEE}"


class TooManyInspections(ApiError):
    """The project has as many uploads waiting for their inspection as it may."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "quota_unfinished_inspections"
    hint = f"Wait until some are ready or rejected. {SEE}"


JOB_QUOTA_ERRORS = (TooManyJobs, JobMinutesSpent)
ANSWERS: dict[str, type[ApiError]] = {
    "stored_bytes": StoredBytesExceeded,
    "unfinished_jobs": TooManyJobs,
    "job_minutes": JobMinutesSpent,
    "unfinished_inspections": TooManyInspections,
}


def quota_error(refused: QuotaExceeded) -> ApiError:
    """The answer to a request that the store refused."""
    after = refused.retry_after_s
    headers = None if after is None else {"Retry-After": str(math.ceil(after))}
    return ANSWERS[refused.quota](f"The request is refused: {refused}.", headers=headers)
