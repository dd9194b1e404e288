"""The digest a sender announces: a `sha256` field in hexadecimal, or a Repr-Digest header (RFC 9530)."""

import base64
import binascii
import re
from typing import Annotated

from pydantic import Field

from app.errors import Fault, InvalidRequest
from app.uploads.errors import DigestMismatch
from app.uploads.incoming import ReceivedFile

Sha256 = Annotated[
    str, Field(pattern="^[0-9a-fA-F]{64}$", description="Checked against the bytes that arrive, if given.")
]

SHA256_MEMBER = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):")


def from_repr_digest(header: str) -> str:
    """The sha-256 member of a Repr-Digest header, in hexadecimal. Raises InvalidRequest where there is none."""
    member = SHA256_MEMBER.search(header)
    try:
        digest = base64.b64decode(member[1], validate=True) if member else b""
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        message = "Send it as `sha-256=:BASE64:`; other algorithms are not checked here."
        raise InvalidRequest(message, faults=[Fault(location="header.Repr-Digest", message=message)])
    return digest.hex()


def to_repr_digest(sha256: str) -> str:
    """A Repr-Digest header for a hexadecimal digest."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def verify(file: ReceivedFile, announced: str | None) -> None:
    """Raise DigestMismatch where the sender announced another digest."""
    if announced is not None and announced.lower() != file.sha256:
        raise DigestMismatch(f"sha256 {announced.lower()} was announced, {file.sha256} arrived.")
