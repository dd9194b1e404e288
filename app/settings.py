"""What the API plane can be told by the environment (`ESPALIER_…`) or by the program that starts it."""

from ipaddress import ip_address
from typing import Literal

from pydantic import Field

from models_store.settings import StoreSettings


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
        return self.auth == "required" or (self.auth == "auto" and not _is_loopback(self.host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
