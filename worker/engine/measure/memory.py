"""Peak memory of a model: the resident memory that loading its file in ONNX Runtime and running one sample adds.

Measured in processes of their own, each forked for one load and one run, so that what earlier work left behind counts
for nothing.
"""

from __future__ import annotations

import ctypes
import resource
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from worker.engine.graph import load_model, sample_inputs
from worker.engine.measure.forked import in_fork
from worker.engine.measure.session import cpu_session

ROUNDS = 3
MAX_SECONDS = 120  # of one load and one run
_RUSAGE_UNIT = 1024  # bytes, of ru_maxrss on Linux
_LIBRARIES = ("onnxruntime", "libstdc++", "libc.so", "libm.so")
_M_MMAP_THRESHOLD = -3  # of mallopt(3)
_MMAP_FROM_BYTES = 128 * 2**10

_libc = ctypes.CDLL(None)


def peak_memory(original: Path, pruned: Path, threads: int = 1, seed: int = 0) -> tuple[int, int] | None:
    """Bytes for the original and for the pruned model, in turn, each the median of ROUNDS; of one sample, or of as many
    as the model insists on. None where a process did not come to its end, or the system is not Linux."""
    if not sys.platform.startswith("linux"):
        return None
    inputs = sample_inputs(load_model(original), seed, 1)
    pages = list(_library_pages())
    taken: tuple[list[int], list[int]] = ([], [])
    for _ in range(ROUNDS):
        for path, found in zip((original, pruned), taken, strict=True):
            peak = _peak(path, inputs, threads, pages)
            if peak is None:
                return None
            found.append(peak)
    return int(statistics.median(taken[0])), int(statistics.median(taken[1]))


def _peak(path: Path, inputs: Mapping[str, np.ndarray], threads: int, pages: list[int]) -> int | None:
    """Bytes, of one process; None where it did not come to its end."""

    def measure() -> str:
        _libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES)  # large blocks come from the system and go back to it
        for page in pages:  # a fork begins without the pages of code that this one has
            ctypes.string_at(page, 1)
        before = _peak_resident()
        cpu_session(path, threads, timed=True).run(None, dict(inputs))
        return str(_peak_resident() - before)

    _libc.malloc_trim(0)  # what was freed here would be used again there without being counted
    found = in_fork(measure, MAX_SECONDS)
    return None if found is None else int(found)


def _peak_resident() -> int:
    """Bytes. Counts from the fork on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_UNIT


def _library_pages() -> Iterator[int]:
    """Addresses, one in each page, of the code that a run may touch; the same after a fork."""
    size = resource.getpagesize()
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, *_, name = line.split(maxsplit=5) if line.count("/") else (line.split()[0], "", "")
        if access.startswith("r") and any(library in name for library in _LIBRARIES):
            start, end = (int(address, 16) for address in span.split("-"))
            yield from range(start, end, size)
