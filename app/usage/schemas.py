"""What /v1/usage answers."""

from typing import Self

from pydantic import BaseModel, Field

from models_store.documents.timestamp import Timestamp
from models_store.quotas import Usage


class Amount(BaseModel):
    """Of one thing."""

    used: float
    limit: int | None = Field(description="Null: as much as there is.")


class UsageView(BaseModel):
    """What the project uses, and what it may."""

    project_id: str
    stored_bytes: Amount = Field(description="Models, datasets, files of jobs, and uploads under way as announced.")
    unfinished_jobs: Amount = Field(description="Queued and running ones; inspections of uploads count apart.")
    unfinished_inspections: Amount = Field(description="Uploads that are inspected, or wait for it.")
    job_minutes: Amount = Field(
        description="Of all attempts of such jobs that run now or ended in this calendar month, deleted ones included."
    )
    month_ends_at: Timestamp = Field(description="From then on `job_minutes` are counted anew.")
    requests_per_minute: int | None = Field(description="Of one key; null: any number.")

    @classmethod
    def of(cls, project_id: str, usage: Usage, requests_per_minute: int | None) -> Self:
        limits = usage.limits
        return cls(
            project_id=project_id,
            stored_bytes=Amount(used=usage.stored_bytes, limit=limits.stored_bytes),
            unfinished_jobs=Amount(used=usage.unfinished_jobs, limit=limits.unfinished_jobs),
            unfinished_inspections=Amount(used=usage.unfinished_inspections, limit=limits.unfinished_inspections),
            job_minutes=Amount(used=round(usage.job_minutes, 2), limit=limits.job_minutes),
            month_ends_at=usage.month_ends_at,
            requests_per_minute=requests_per_minute,
        )
