"""The Upload-Checksum header: the digest of one request's bytes, checked before any of them count."""

import base64
import binascii
import hashlib

from app.tus.errors import ChecksumMismatch, UnsupportedChecksum

ALGORITHMS = ("sha256", "sha1")  # sha1, because the protocol demands it of every server
PATTERN = r"^[a-z0-9]+ [A-Za-z0-9+/]+={0,2}$"


class Checksum:
    """The digest that a body must have; fed with its bytes as they come."""

    def __init__(self, header: str) -> None:
        """Raises UnsupportedChecksum."""
        algorithm, _, digest = header.partition(" ")
        if algorithm not in ALGORITHMS:
            raise UnsupportedChecksum(f"{algorithm} is none of {', '.join(ALGORITHMS)}.")
        try:
            self._announced = base64.b64decode(digest, validate=True)
        except binascii.Error as error:
            raise UnsupportedChecksum(f"{digest} is not Base64.") from error
        self._digest = hashlib.new(algorithm, usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self._digest.update(data)

    def verify(self) -> None:
        """Raises ChecksumMismatch."""
        if self._digest.digest() != self._announced:
            arrived = base64.b64encode(self._digest.digest()).decode()
            raise ChecksumMismatch(f"The bytes that arrived have the {self._digest.name} digest {arrived}.")
