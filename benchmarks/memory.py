"""Peak resident memory of this process, phase by phase (Linux)."""

import re
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
"""What the kernel wants in clear_refs to start counting the peak anew (proc(5))."""


def start_peak() -> int:
    """Forget the peak so far. Returns the bytes resident now, from which `peak` counts up.

    getrusage would not do: its peak is inherited from the parent process and cannot be reset.
    """
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    return _field("VmRSS")


def peak() -> int:
    """The most bytes that were resident at once since `start_peak`."""
    return _field("VmHWM")


def _field(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    assert found, f"no {name} in {_STATUS}"
    return int(found[1]) * 1024
