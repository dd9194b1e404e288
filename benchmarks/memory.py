"""Peak resident memory of this process or another one, phase by phase (Linux)."""

import re
from pathlib import Path

_RESET_PEAK = "5"
"""What the kernel wants in clear_refs to start counting the peak anew (proc(5))."""


def start_peak(pid: int | None = None) -> int:
    """Forget the peak so far. Returns the bytes resident now, from which `peak` counts up.

    getrusage would not do: its peak is inherited from the parent process and cannot be reset.
    """
    Path(f"/proc/{pid or 'self'}/clear_refs").write_text(_RESET_PEAK)
    return _field("VmRSS", pid)


def peak(pid: int | None = None) -> int:
    """The most bytes that were resident at once since `start_peak`."""
    return _field("VmHWM", pid)


def _field(name: str, pid: int | None) -> int:
    status = Path(f"/proc/{pid or 'self'}/status")
    found = re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    assert found, f"no {name} in {status}"
    return int(found[1]) * 1024
