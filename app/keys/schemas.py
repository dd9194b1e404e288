"""What goes in and out of /v1/keys."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from app.names import MAX_LENGTH
from app.pages import Listed, Moment, Page
from models_store.api_keys import GRACE_S
from models_store.documents.access import Scope
from models_store.documents.timestamp import Timestamp
from models_store.tables import ApiKey

LONGEST_GRACE_S = 30 * 24 * 3600
KeyName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_LENGTH,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="What the key is for, for people.",
    ),
]


class NewKey(BaseModel):
    """A key for a program or a person."""

    model_config = ConfigDict(extra="forbid")

    name: KeyName
    scopes: frozenset[Scope] = Field(
        default=frozenset({Scope.READ, Scope.WRITE}),
        min_length=1,
        description="; ".join(f"`{scope}`: {scope.meaning}" for scope in Scope) + ". None implies another.",
    )
    expires_at: Moment | None = Field(default=None, description="Refused from then on; never if left out.")


class Rotation(BaseModel):
    """How a secret is replaced."""

    model_config = ConfigDict(extra="forbid")

    grace_s: int = Field(
        default=int(GRACE_S), ge=0, le=LONGEST_GRACE_S, description="How long the old secret stays valid; 0: no longer."
    )


class KeyView(Listed):
    """A key, without its secret."""

    id: str = Field(examples=["key_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    project_id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: Timestamp
    expires_at: Timestamp | None
    previous_expires_at: Timestamp | None = Field(
        description="Until then the secret before the last rotation is valid."
    )
    last_used_at: Timestamp | None = Field(description="To the minute.")
    revoked_at: Timestamp | None

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        return cls.model_validate(key, from_attributes=True)


class KeyWithText(KeyView):
    """A key and what to send in the header `Authorization: Bearer …`. It is not shown again."""

    key: str | None = Field(
        default=None,
        description="`esp_<id>_<secret>`. Null where an Idempotency-Key repeats an earlier request: only a hash is "
        "kept of it. Rotate the key to get another one.",
    )

    @classmethod
    def with_text(cls, key: ApiKey, text: str) -> Self:
        return cls.model_validate({**KeyView.of(key).model_dump(), "key": text})


SHOWN_ONCE = frozenset({"key"})


class KeyPage(Page[KeyView]):
    """Keys, newest first; revoked ones, too."""
