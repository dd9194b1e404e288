"""Errors of attempts that a child did not live to explain, in words for the job's owner."""

from __future__ import annotations

import signal
from pathlib import Path

from models_store.documents.event import ErrorClass, JobError
from models_store.documents.job_spec import JobKind

_BROKEN_BY_INPUT = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_VMSTAT = Path("/proc/vmstat")

INSPECTION_TIMEOUT = JobError(
    code="inspection_timeout",
    error_class=ErrorClass.USER,
    message="The inspection of this upload took longer than an inspection may.",
    hint="Send it again where the machine was busy, or a smaller file, or a model without long-running loops.",
    stage="inspect",
)


NOT_WAITED_FOR = JobError(
    code="not_waited_for",
    error_class=ErrorClass.USER,
    message="The job that this is a part of has ended, or begun anew.",
)


def spec_refused(reason: str) -> JobError:
    return JobError(
        code="spec_refused",
        error_class=ErrorClass.USER,
        message=f"The job was queued by another version, and this one does not take what it asks for: {reason}",
        hint="Send the job again without it.",
    )


def files_unavailable(error: Exception) -> JobError:
    return JobError(
        code="files_unavailable",
        error_class=ErrorClass.INFRASTRUCTURE,
        message=f"The job's files could not be fetched or put away: {error}",
        hint="Look at the blob store and at the worker's disk.",
    )


def overdue(kind: str, deadline_s: float) -> JobError:
    if kind == JobKind.INSPECT:
        return INSPECTION_TIMEOUT
    return JobError(
        code="deadline_exceeded",
        error_class=ErrorClass.RESOURCES,
        message=f"The job was still running after its deadline of {deadline_s:g} s.",
        hint="Raise deadline_s, or ask for fewer epochs.",
    )


def unbelievable(reason: str) -> JobError:
    return JobError(
        code="untrusted_output",
        error_class=ErrorClass.INFRASTRUCTURE,
        message=f"The job's process left output that cannot be trusted: {reason}",
        hint="Look at the worker's log; the uploaded file may have taken over its sandbox.",
    )


def crashed(kind: str, exit_code: int, out_of_memory: bool) -> tuple[JobError, bool]:
    """The error, and whether another attempt may end better."""
    how = _how_it_ended(exit_code)
    if kind == JobKind.INSPECT and -exit_code == signal.SIGXCPU:
        return INSPECTION_TIMEOUT, False
    if out_of_memory:
        return _out_of_memory(how), True
    if kind == JobKind.INSPECT:
        return _inspection_crashed(how), -exit_code not in _BROKEN_BY_INPUT
    return (
        JobError(
            code="worker_lost",
            error_class=ErrorClass.INFRASTRUCTURE,
            message=f"The job's process {how}.",
            hint="Look at the worker's log for what it printed last.",
        ),
        True,
    )


def kernel_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started; 0 where it does not tell."""
    if not _VMSTAT.exists():
        return 0
    rows = (line.split() for line in _VMSTAT.read_text().splitlines())
    return next((int(row[1]) for row in rows if row[0] == "oom_kill"), 0)


def _out_of_memory(how: str) -> JobError:
    return JobError(
        code="out_of_memory",
        error_class=ErrorClass.RESOURCES,
        message=f"The machine ran out of memory and the job's process {how}.",
        hint="Ask for smaller batches, or run the job on a worker with more memory.",
    )


def _inspection_crashed(how: str) -> JobError:
    return JobError(
        code="inspection_crashed",
        error_class=ErrorClass.USER,
        message=f"The process that inspected this upload {how}.",
        hint="Check the file with its own library (onnx.checker, PIL.Image.verify, numpy.load) and export it again.",
        stage="inspect",
    )


def _how_it_ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code} and no result"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = str(-exit_code)
    return f"was ended by signal {name}"
