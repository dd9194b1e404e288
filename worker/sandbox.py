"""Confinement of a child: entered by the child itself, before it opens a stranger's file.

T0, always: own process group, allow-listed environment, resource limits, no new privileges, death with its parent,
private work folder. T1, where the kernel has Landlock: besides, it reads code and inputs only, writes its work folder
only, runs no program and opens no TCP connection.

A standard-library module: the child imports it first of all.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from worker import landlock, seccomp

Tier = Literal["T0", "T1"]

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_OPEN_FILES = 4096
_SECONDS_FROM_SIGXCPU_TO_SIGKILL = 5
_NICENESS = 10
"""A job yields to the API, the database and the broker where they share its machine."""

SPINS = 10_000
"""Turns for which a thread of torch waits for the others before it lends its core to another process. By default they
are 300,000, and two jobs on the same cores hold each other up; fewer than these slow one down that is alone
(benchmarks/side_by_side.py)."""

# What a child may know of its worker's environment. Anything else could be a secret.
_ALLOWED_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "PATH",
    "TZ",
)
_CODE = Path(__file__).resolve().parent.parent
_SYSTEM_FILES = ("/usr", "/lib", "/lib64", "/sys", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types")
# Not all of /proc: the environment of the worker, with its secrets, is there too.
_PROCESS_FILES = ("self", "cpuinfo", "driver", "filesystems", "meminfo", "modules", "stat", "sys", "version")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_GPU_DEVICES = "nvidia*"

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Limits:
    """Resource limits of a child; None leaves one as it is."""

    memory_bytes: int | None = None
    cpu_s: int | None = None
    file_bytes: int | None = None


def best_tier() -> Tier:
    """The strongest tier this machine offers."""
    return "T1" if landlock.available() else "T0"


def environment(inherited: Mapping[str, str], scratch: Path, threads: int) -> dict[str, str]:
    """The whole environment of a child that keeps its temporary files in `scratch`."""
    kept = {name: inherited[name] for name in _ALLOWED_VARIABLES if name in inherited}
    folder = str(scratch)
    return kept | {
        "CUDA_CACHE_PATH": folder,
        "GOMP_SPINCOUNT": str(SPINS),
        "HOME": folder,
        "OMP_NUM_THREADS": str(threads),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(_CODE),
        "TMPDIR": folder,
        "XDG_CACHE_HOME": folder,
    }


def die_with_parent(parent_pid: int) -> None:
    """Ends the process at once if `parent_pid` is no longer its parent, which died before this could be said."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def enter(
    tier: Tier,
    limits: Limits,
    parent_pid: int,
    readable: tuple[Path, ...],
    writable: tuple[Path, ...],
    *,
    joins_others: bool = False,
) -> None:
    """Confine the calling process for good. Raises OSError where the kernel refuses: then nothing may be opened.

    A process that `joins_others` may still connect to them; it calls `close_network` before it opens a stranger's file.
    """
    die_with_parent(parent_pid)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _drop_capabilities()
    os.nice(_NICENESS)
    _set_limits(limits)
    if tier == "T1":
        landlock.restrict(
            [(path, landlock.READ) for path in (*_code_folders(), *readable)]
            + [(path, landlock.WRITE) for path in writable]
            + [(path, landlock.DEVICE) for path in _devices()],
            deny_tcp=not joins_others,
        )


def close_network(tier: Tier) -> None:
    """What `enter` left open to a process that joins others; all of its threads keep the connections they have.

    Raises OSError where the kernel refuses: then nothing may be opened.
    """
    if tier == "T1":
        seccomp.deny_new_sockets()


def _set_limits(limits: Limits) -> None:
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if limits.memory_bytes is not None:
        _lower(resource.RLIMIT_AS, limits.memory_bytes)
    if limits.file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, limits.file_bytes)
    if limits.cpu_s is not None:
        _lower(resource.RLIMIT_CPU, limits.cpu_s, _SECONDS_FROM_SIGXCPU_TO_SIGKILL)


def _lower(kind: int, value: int, margin: int = 0) -> None:
    """Set the soft limit to `value` and the hard one `margin` above, never above what they were."""
    hard = resource.getrlimit(kind)[1]
    ceiling = value + margin if hard == resource.RLIM_INFINITY else min(value + margin, hard)
    resource.setrlimit(kind, (min(value, ceiling), ceiling))


def _code_folders() -> tuple[Path, ...]:
    python = (sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    libraries = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    house = (_CODE / room for room in ("worker", "models_store"))
    processes = (Path("/proc", name).resolve() for name in _PROCESS_FILES)
    return (*house, *processes, *map(Path, (*python, *libraries, *_SYSTEM_FILES)))


def _devices() -> tuple[Path, ...]:
    return (*map(Path, _DEVICES), *Path("/dev").glob(_GPU_DEVICES))


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        _raise_errno(f"prctl {option}")


def _drop_capabilities() -> None:
    """Give up root's powers where the worker runs as root, as in many containers; see capset(2)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        _raise_errno("capset")


def _raise_errno(call: str) -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), call)
