"""Identifiers: a prefix that tells what it names, and a UUIDv7, so that ids sort by time of creation."""

import secrets
import threading
import time
from typing import Literal

Prefix = Literal["mdl", "dst", "job", "whk", "dlv", "msg", "pip", "run", "upl", "prj", "key", "aud"]

_lock = threading.Lock()
_last = 0


def uuid7_hex() -> str:
    """A UUIDv7 as 32 hexadecimal digits (RFC 9562, section 5.7), strictly increasing within this process.

    48 bits of milliseconds, version, 12 bits of fraction of a millisecond (method 3 of section 6.2),
    variant, 62 random bits.
    """
    global _last
    nanoseconds = time.time_ns()
    ticks = (nanoseconds // 1_000_000 << 12) | ((nanoseconds % 1_000_000) * 4096 // 1_000_000)
    with _lock:
        ticks = _last = max(ticks, _last + 1)
    milliseconds, fraction = ticks >> 12, ticks & 0xFFF
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    return f"{value:032x}"


def new_id(prefix: Prefix) -> str:
    """A new id, such as `job_01934c3f9a2b7c0e8d5f6a7b8c9d0e1f`."""
    return f"{prefix}_{uuid7_hex()}"


def first_id(prefix: Prefix, at_s: float) -> str:
    """What no id made from that moment on, in seconds of the epoch, sorts before."""
    return f"{prefix}_{int(at_s * 1000) << 80:032x}"
