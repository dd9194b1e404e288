"""One measurement in a process of its own: with a time limit, one thread, and an account of how it ended."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.machine import REPOSITORY
from benchmarks.pruners.report import heard

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def run(module: str, arguments: Sequence[str], limit_seconds: float) -> dict[str, Any]:
    """What `python -m module arguments` reported, or `{"status": "failed" | "timeout", "error": ...}`."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **_ONE_THREAD},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"status": "timeout", "error": f"stopped after {limit_seconds:.0f} s"}
    result = heard(output) if process.returncode == 0 else None
    if result is None:
        last = [line for line in errors.splitlines() if line.strip()][-1:]
        return {"status": "failed", "error": (last[0] if last else f"exit status {process.returncode}")[:400]}
    return result
