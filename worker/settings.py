"""Settings of the job plane, read from ESPALIER_* environment variables."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from models_store.settings import StoreSettings


class WorkerSettings(StoreSettings):
    """How a worker claims, watches and confines jobs. Times in seconds, sizes in bytes."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where finetuning runs.")
    work_dir: Path | None = Field(default=None, description="Private work folders; data_dir/work where unset.")

    lease_s: float = Field(default=60, gt=0, description="A worker silent for this long has lost its job.")
    heartbeat_s: float = Field(default=10, gt=0, description="Between two renewals of the lease.")
    poll_s: float = Field(default=1, gt=0, description="Between two looks at the job's row for a cancel.")
    sweep_s: float = Field(default=5, gt=0, description="Between two sweeps.")
    grace_s: float = Field(default=20, ge=0, description="Between SIGTERM and SIGKILL at a drain or a deadline.")
    checkpoint_s: float = Field(default=30, ge=0, description="Between two checkpoints of a training.")
    spread_s: float = Field(
        default=30, ge=0, description="Random masks that one worker would score for longer are spread over all workers."
    )
    cancel_grace_s: float = Field(default=2, ge=0, description="Between SIGTERM and SIGKILL at a cancel.")

    tidy_s: float = Field(default=600, gt=0, description="Between two looks for what is to be forgotten.")
    keep_jobs_days: int | None = Field(
        default=None, ge=0, description="Jobs, with all that is theirs, after their end; for ever if unset."
    )
    keep_artifacts_days: int | None = Field(
        default=None, ge=0, description="Files that jobs made, but not their reports; for ever if unset."
    )
    keep_events_days: int | None = Field(
        default=90, ge=0, description="Progress and logs of jobs, after their end; how they ended stays."
    )
    keep_deliveries_days: int | None = Field(default=30, ge=0, description="The log of webhook deliveries.")
    keep_hook_events_days: int | None = Field(
        default=30, ge=0, description="Inbound events that were accepted, by which repetitions are known."
    )
    garbage_s: float = Field(
        default=24 * 3600, ge=0, description="Files that nothing needs any more are kept this long, and as long again."
    )

    webhook_http: bool = Field(default=False, description="Webhooks may also go to http:// addresses.")
    webhook_private_networks: bool = Field(
        default=False, description="Webhooks may also go to loopback and private addresses."
    )

    sandbox: Literal["auto", "T0", "T1"] = Field(
        default="auto", description="auto: the best tier this kernel has; T1 refuses to start a job without it."
    )
    inspect_deadline_s: float = Field(default=120, gt=0, description="Longest inspection of an upload.")
    inspect_memory_bytes: int = Field(default=2 * 2**30, gt=0, description="Address space of an inspection.")
    inspect_cpu_s: int | None = Field(
        default=None, gt=0, description="CPU time of an inspection per thread; as long as its deadline if unset."
    )
    job_memory_bytes: int | None = Field(
        default=None, gt=0, description="Address space of each process of a CPU job; None: no limit."
    )
    output_bytes: int = Field(default=16 * 2**30, gt=0, description="Largest file a child may write.")
    training_processes: int | None = Field(
        default=None,
        ge=1,
        description="Processes that train a job together, one per GPU; unset: for every GPU that the worker sees.",
    )
    child_threads: int | None = Field(
        default=None, ge=1, description="Threads of a child; if unset, as many as the worker has cores."
    )

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> "WorkerSettings":
        if self.lease_s < 2 * self.heartbeat_s:
            raise ValueError("lease_s must be at least twice heartbeat_s, or one late heartbeat loses the job")
        return self

    @property
    def work_folder(self) -> Path:
        return (self.work_dir or self.data_dir / "work").absolute()
