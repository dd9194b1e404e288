"""What goes in and out of …/link."""

from pydantic import BaseModel, ConfigDict, Field

from models_store.documents.timestamp import Timestamp

MINUTE_S = 60
DEFAULT_LINK_S = 15 * MINUTE_S
LONGEST_LINK_S = 24 * 60 * MINUTE_S


class NewLink(BaseModel):
    """How long the link is to open the file."""

    model_config = ConfigDict(extra="forbid")

    seconds: int = Field(default=DEFAULT_LINK_S, ge=1, le=LONGEST_LINK_S)


class LinkView(BaseModel):
    """Whoever has the link can read the file until it expires."""

    url: str = Field(description="For a browser: a page is shown, other files are downloaded.")
    expires_at: Timestamp
