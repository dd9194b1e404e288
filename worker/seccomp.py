"""System-call filters (seccomp(2)): what Landlock cannot take from the threads that a process already has.

A filter is put on all threads at once. It answers the calls that make, bind or connect sockets, and io_uring, by which
the same could be asked for, with EPERM; sockets that are open and connected go on working.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_SET_MODE_FILTER = 1
_TSYNC = 1  # all threads of the process

_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _DENY, _KILL_PROCESS = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
_X32 = 0x40000000  # calls of a second kind, on x86-64 alone

# By machine: AUDIT_ARCH_*, the number of seccomp(2) itself, and those of socket, connect, accept, bind, listen,
# accept4 and io_uring_setup.
_MACHINES = {
    "x86_64": (0xC000003E, 317, (41, 42, 43, 49, 50, 288, 425)),
    "aarch64": (0xC00000B7, 277, (198, 203, 202, 200, 201, 242, 425)),
}

_libc = ctypes.CDLL(None, use_errno=True)


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def deny_new_sockets() -> None:
    """In all threads, for good. `no_new_privs` must be set. Raises OSError where that cannot be had."""
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no numbers of system calls are known for {machine}", "seccomp")
    architecture, seccomp, denied = _MACHINES[machine]
    steps = _filter(architecture, denied)
    program = _Program(len(steps), (_Instruction * len(steps))(*steps))
    result = _libc.syscall(ctypes.c_long(seccomp), _SET_MODE_FILTER, _TSYNC, ctypes.byref(program))
    if result != 0:  # above 0: the thread that has a filter of its own
        code = ctypes.get_errno() if result < 0 else errno.EBUSY
        raise OSError(code, os.strerror(code), "seccomp")


def _filter(architecture: int, denied: tuple[int, ...]) -> list[_Instruction]:
    """Jumps are relative: each check that finds something skips what is left of them, to one of the three ends."""
    checks = [
        _Instruction(_LOAD_WORD, 0, 0, _ARCHITECTURE_AT),
        _Instruction(_JUMP_IF_EQUAL, 0, len(denied) + 4, architecture),
        _Instruction(_LOAD_WORD, 0, 0, _NUMBER_AT),
        _Instruction(_JUMP_IF_AT_LEAST, len(denied) + 1, 0, _X32),
        *(_Instruction(_JUMP_IF_EQUAL, len(denied) - place, 0, call) for place, call in enumerate(denied)),
    ]
    return [
        *checks,
        _Instruction(_RETURN, 0, 0, _ALLOW),
        _Instruction(_RETURN, 0, 0, _DENY),
        _Instruction(_RETURN, 0, 0, _KILL_PROCESS),
    ]
