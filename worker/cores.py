"""How many cores a worker may use: fewer than the machine has, in a container or bound to some of them.

A standard-library module, as a worker is to stay light.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """At least 1: the cores that this process is bound to, and no more than the CPU time that its control groups have
    (`docker run --cpus`, Kubernetes' limits), rounded up. More threads than that would wait for one another."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min([bound, *(math.ceil(quota) for quota in _quotas(cgroups, membership))]), 1)


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """CPU seconds per second of this process's groups and of those above, of both versions of control groups."""
    with suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            names = controllers.split(",") if controllers else []
            if names and "cpu" not in names:
                continue
            root = cgroups / controllers if names else cgroups
            folder = root / group.lstrip("/")
            while folder != root:
                yield from _quota(folder)
                folder = folder.parent
            yield from _quota(root)  # where a container sees its own group, wherever its path says that it is


def _quota(folder: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        if quota != "max":
            yield int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(quota) > 0:
            yield int(quota) / int(period)
