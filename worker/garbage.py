"""Shared blobs that no row names any more: set aside first, and deleted once it is sure that nobody came to need them.

An upload may come to share a blob at the very moment when it is found to be garbage. Whoever adopts a blob renews its
age, and only old blobs are set aside; should both happen within the same instant, the row that names the blob is seen
at one of the following looks, and the blob put back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from models_store import retention
from models_store.blobs import BlobStore
from models_store.database import Database

logger = logging.getLogger(__name__)

_AT_ONCE = 500


@dataclass(frozen=True)
class Collected:
    """Keys of blobs."""

    set_aside: tuple[str, ...] = ()
    put_back: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


def collect(database: Database, blobs: BlobStore, older_than_s: float) -> Collected:
    """Look once through all shared blobs. Raises BlobsUnavailable, DBAPIError."""
    put_back = tuple(_named(database, blobs.aside()))
    for key in put_back:
        blobs.put_back(key)
    deleted = tuple(_unnamed(database, blobs.aside(older_than_s)))
    for key in deleted:
        blobs.delete_aside(key)
    set_aside = tuple(_unnamed(database, blobs.old(older_than_s)))
    for key in set_aside:
        blobs.set_aside(key)
    if set_aside or put_back or deleted:
        logger.info("garbage: %s set aside, %s put back, %s deleted", len(set_aside), len(put_back), len(deleted))
    return Collected(set_aside, put_back, deleted)


def _named(database: Database, keys: Iterable[str]) -> Iterator[str]:
    for some in _batches(keys):
        with database.session(read_only=True) as session:
            named = retention.named(session, some)
        yield from (key for key in some if key in named)


def _unnamed(database: Database, keys: Iterable[str]) -> Iterator[str]:
    for some in _batches(keys):
        with database.session(read_only=True) as session:
            named = retention.named(session, some)
        yield from (key for key in some if key not in named)


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for key in keys:
        batch.append(key)
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch
