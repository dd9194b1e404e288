"""One measurement in a process of its own: with a time limit, one thread, and an account of how it ended."""

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.machine import REPOSITORY
from benchmarks.pruners.report import heard

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def run(module: str, arguments: Sequence[str], limit_seconds: float) -> dict[str, Any]:
    """What `python -m module arguments` reported, or `{"status": "failed" | "timeout", "error": ...}`."""
    try:
        process = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **_ONE_THREAD},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_seconds,
        )
    except subprocess.TimeoutExpired:
        return {"status": "timeout", "error": f"stopped after {limit_seconds:.0f} s"}
    result = heard(process.stdout) if process.returncode == 0 else None
    if result is None:
        last = [line for line in process.stderr.splitlines() if line.strip()][-1:]
        return {"status": "failed", "error": (last[0] if last else f"exit status {process.returncode}")[:400]}
    return result
