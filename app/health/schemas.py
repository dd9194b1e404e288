"""What the probes answer."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """This process answers."""

    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One thing that the service needs."""

    name: Literal["database", "blobs", "broker"]
    ok: bool
    message: str = Field(default="", description="What is wrong with it.")
    took_ms: float


class Readiness(BaseModel):
    """Ready where all checks are."""

    status: Literal["ready", "unavailable"]
    auth: Literal["required", "off"] = Field(description="Whether requests need an API key.")
    checks: list[Check]
