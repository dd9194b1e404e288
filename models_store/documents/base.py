"""The base of every document that crosses a boundary of the house."""

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """An immutable, versioned JSON document; unknown fields are an error, not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)
