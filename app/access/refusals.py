"""Keys that were refused: counted by address, and told in the audit log of whom they were meant for."""

import logging
from ipaddress import IPv6Address, IPv6Network, ip_address

from fastapi import Request

from app.plane import Plane
from models_store.audit import BY, REFUSED, Actor, AuditRepository
from models_store.errors import KeyRefused
from models_store.projects import DEFAULT_PROJECT

log = logging.getLogger(__name__)

IPV6_PREFIX = 64
"""What one customer of a provider has at least, and so may change as they like."""


def note(plane: Plane, request: Request, refused: KeyRefused, code: str) -> None:
    """Count and record one refused key; the project is that of the key that was meant, or else the operator's.

    Too many of them are neither looked into nor recorded. A valid key is let in all the same: many people may share an
    address, and guessing does not find one. Raises TooManyRefusedKeys.
    """
    address = request.client.host if request.client else ""
    if plane.refused_keys is not None:
        plane.refused_keys.count(sender(address))
    log.warning("a key from %s was refused: %s", address, refused)
    actor = Actor(refused.key_id, f"{REFUSED}{code}", address)
    of_project = plane.database.of_project(refused.project_id or DEFAULT_PROJECT, **{BY: actor})
    try:
        with of_project.session() as session:
            AuditRepository(session).record_refusal(request.url.path)
    except Exception as error:  # the refusal stands without it, whatever it was
        log.warning("the refusal of a key was not recorded: %r", error)


def sender(address: str) -> str:
    """Whom requests from an address are counted for."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Network((int(found), IPV6_PREFIX), strict=False))
    return address
