"""What a measurement ran on: hardware, versions, and the commit of the code."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
WRITTEN = (":!benchmarks/results", ":!docs/results.md")


def describe(*distributions: str) -> dict[str, Any]:
    """Processor, memory, operating system, Python, the commit, and the versions of `distributions` (None: absent)."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
        "versions": {name: installed_version(name) for name in distributions},
    }


def commit() -> str:
    """The checked-out commit, marked where the code differs from it; empty outside a checkout. What benchmarks write
    into the working tree is not code."""
    try:
        head = _git("rev-parse", "HEAD").strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN).strip()
    return f"{head}+changes" if changes else head


def installed_version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout  # noqa: S607


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
