"""What the API plane can be told by the environment (`ESPALIER_…`) or by the program that starts it."""

from ipaddress import ip_address
from typing import Literal

from pydantic import Field

from models_store.quotas import Limits
from models_store.settings import StoreSettings

DEFAULT_REQUESTS_PER_MINUTE = 1200
DEFAULT_STORED_BYTES = 100 * 2**30
DEFAULT_UNFINISHED_JOBS = 100
DEFAULT_JOB_MINUTES = 20_000
DEFAULT_UNFINISHED_INSPECTIONS = 200


class ApiSettings(StoreSettings):
    """The store's settings and the API's own."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        pattern="^rediss?://",
        repr=False,
        description="The broker; it carries doorbells only.",
    )
    max_upload_bytes: int = Field(default=8 * 2**30, ge=1, description="Largest model or dataset file.")
    upload_kept_s: float = Field(
        default=24 * 3600, gt=0, description="How long an upload in pieces waits for its next piece."
    )
    event_poll_s: float = Field(default=0.5, gt=0, description="How often an event stream looks for news.")

    auth: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Whether requests need an API key; auto: unless the service listens on loopback only.",
    )

    metrics_open: bool = Field(
        default=False, description="Whether /metrics answers without a key; else it needs one of the scope instance."
    )

    rate_limit_per_minute: int | None = Field(
        default=None, ge=0, description="Requests of one key; 0: any number. Unset: 1200 where keys are asked for."
    )
    refused_keys_per_minute: int = Field(
        default=30,
        ge=0,
        description="Keys from one address that are none, before their sender is told to wait; 0: any.",
    )
    quota_stored_bytes: int | None = Field(
        default=None, ge=0, description="Of one project; 0: any number. Unset: 100 GiB where keys are asked for."
    )
    quota_unfinished_jobs: int | None = Field(
        default=None, ge=0, description="Of one project; 0: any number. Unset: 100 where keys are asked for."
    )
    quota_job_minutes: int | None = Field(
        default=None,
        ge=0,
        description="Of one project in a month; 0: any number. Unset: 20000 where keys are asked for.",
    )
    quota_unfinished_inspections: int | None = Field(
        default=None,
        ge=0,
        description="Uploads of one project; 0: any number. Unset: 200 where keys are asked for.",
    )

    public_url: str = Field(
        default="",
        pattern=r"^(https?://[\x21-\x7e]+)?$",
        description="Where users find this service, for links.",
    )
    webhook_http: bool = Field(default=False, description="Webhooks may also go to http:// addresses.")
    webhook_private_networks: bool = Field(
        default=False, description="Webhooks may also go to loopback and private addresses."
    )

    @property
    def keyed(self) -> bool:
        """Whether requests need an API key. Where they do not, everything belongs to the default project."""
        return self.auth == "required" or (self.auth == "auto" and not is_loopback(self.host))

    @property
    def local(self) -> bool:
        """Whether nobody is asked for a key because only this machine can ask."""
        return self.auth == "auto" and not self.keyed

    @property
    def limits(self) -> Limits:
        """Of every project that has none of its own."""
        return Limits(
            self._limit(self.quota_stored_bytes, DEFAULT_STORED_BYTES),
            self._limit(self.quota_unfinished_jobs, DEFAULT_UNFINISHED_JOBS),
            self._limit(self.quota_job_minutes, DEFAULT_JOB_MINUTES),
            self._limit(self.quota_unfinished_inspections, DEFAULT_UNFINISHED_INSPECTIONS),
        )

    @property
    def requests_per_minute(self) -> int | None:
        return self._limit(self.rate_limit_per_minute, DEFAULT_REQUESTS_PER_MINUTE)

    def _limit(self, chosen: int | None, default: int) -> int | None:
        """None: without a limit."""
        if chosen is None:
            return default if self.keyed else None
        return chosen or None


def is_loopback(host: str) -> bool:
    """Whether an address or a name is that of this machine, for itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
