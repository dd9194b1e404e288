"""What /v1/audit answers."""

from typing import Self

from pydantic import Field

from app.pages import Listed, Page
from models_store.documents.timestamp import Timestamp
from models_store.tables import AuditEntry


class AuditView(Listed):
    """One change."""

    id: str = Field(examples=["aud_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f"])
    at: Timestamp
    key_id: str | None = Field(description="Whose; null where no key was asked for, as for inbound hooks.")
    action: str = Field(
        description="The operation's name in the OpenAPI document, such as `delete_model`; or `refused_key_invalid`, "
        "`refused_key_expired` or `refused_key_revoked`, where a key was not let in, for the first hundred of a day."
    )
    resource: str = Field(description="The path of what was made or changed.")
    address: str = Field(description="Where the request came from.")

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        return cls.model_validate(entry, from_attributes=True)


class AuditPage(Page[AuditView]):
    """Changes, newest first."""
