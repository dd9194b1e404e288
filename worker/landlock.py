"""Landlock, the kernel's own sandbox for unprivileged processes, through its three system calls.

See landlock(7). A ruleset names the rights it handles; what no rule allows is denied from then on, for the calling
thread and everything it starts, with no way back.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from enum import IntFlag
from pathlib import Path

# The same numbers on every architecture.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Access(IntFlag):
    """LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # ABI 2
    TRUNCATE = 1 << 14  # ABI 3
    IOCTL_DEV = 1 << 15  # ABI 5


READ = Access.READ_FILE | Access.READ_DIR
# Regular files and folders only: no devices, sockets, pipes or links.
WRITE = READ | (
    Access.WRITE_FILE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
    | Access.REFER
    | Access.TRUNCATE
)
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV

_ON_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
_NET_BIND_AND_CONNECT_TCP = 0b11  # ABI 4
_SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11  # ABI 6

# TCP can be denied from here on; below it the kernel's Landlock is not enough for a tier of its own.
_MINIMUM_ABI = 4


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def available() -> bool:
    """Whether this kernel can confine both files and TCP."""
    return _abi() >= _MINIMUM_ABI


def restrict(rules: Iterable[tuple[Path, Access]], *, deny_tcp: bool = True) -> None:
    """Confine this thread and its descendants to `rules`, and deny TCP. Paths that do not exist are passed over.

    `no_new_privs` must be set. Call it while the process has one thread. Raises OSError where the kernel refuses.
    """
    abi = _abi()
    handled = _handled(abi)
    scoped = _SCOPE_ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0
    attributes = _RulesetAttr(handled, _NET_BIND_AND_CONNECT_TCP if deny_tcp else 0, scoped)
    size = ctypes.sizeof(attributes) if abi >= 6 else _RulesetAttr.scoped.offset
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    try:
        for path, access in rules:
            if path.exists():
                _allow(ruleset, path, access & handled)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _abi() -> int:
    """The kernel's Landlock version; 0 where it has none or it is switched off."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def _handled(abi: int) -> Access:
    rights = ~Access(0)
    return rights if abi >= 5 else rights & ~Access.IOCTL_DEV


def _allow(ruleset: int, path: Path, access: Access) -> None:
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(folder).st_mode):
            access &= _ON_FILES
        attributes = _PathBeneathAttr(access, folder)
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(attributes), 0)
    finally:
        os.close(folder)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"landlock system call {number}")
    return result
