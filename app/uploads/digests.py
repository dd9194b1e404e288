"""The digest a sender announces: a `sha256` field in hexadecimal, or a Repr-Digest header (RFC 9530)."""

import base64
import re
from typing import Annotated

from pydantic import Field

from app.uploads.errors import DigestMismatch
from app.uploads.incoming import ReceivedFile

Sha256 = Annotated[
    str, Field(pattern="^[0-9a-fA-F]{64}$", description="Checked against the bytes that arrive, if given.")
]

REPR_DIGEST = r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/]{43}=):"
SHA256_MEMBER = re.compile(REPR_DIGEST)


def from_repr_digest(header: str) -> str:
    """The sha-256 member of a header that matches REPR_DIGEST, in hexadecimal."""
    member = SHA256_MEMBER.search(header)
    assert member is not None, header  # noqa: S101  the endpoint's parameter has this pattern
    return base64.b64decode(member[1]).hex()


def to_repr_digest(sha256: str) -> str:
    """A Repr-Digest header for a hexadecimal digest."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def verify(file: ReceivedFile, announced: str | None) -> None:
    """Raise DigestMismatch where the sender announced another digest."""
    if announced is not None and announced.lower() != file.sha256:
        raise DigestMismatch(f"sha256 {announced.lower()} was announced, {file.sha256} arrived.")
