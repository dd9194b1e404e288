"""`espalier serve` as a user starts it, and what it leaves behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
# Layers this small gain nothing from more threads, and the tests share two cores.
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "ESPALIER_CHILD_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "200",
}


def run(*arguments: str, timeout_s: float = 300, **variables: str) -> subprocess.CompletedProcess[str]:
    """The `espalier` command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "espalier", *arguments],
        env=ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def descendants(pid: int) -> set[int]:
    """Processes below `pid`, at any depth."""
    found: set[int] = set()
    below = {pid}
    while below:
        children = {
            int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _parent(entry) in below
        }
        below = children - found
        found |= children
    return found


def alive(pids: Sequence[int] | set[int]) -> set[int]:
    """Those of `pids` that still run; zombies do not."""
    return {pid for pid in pids if _state(pid) not in ("Z", "X", "")}


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


@dataclass(frozen=True)
class Served:
    """A running service."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path

    def interrupt(self) -> int:
        """What Ctrl-C does; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def served(data_dir: Path, *options: str, **variables: str) -> Iterator[Served]:
    """`espalier serve` on a free port, from ready to stopped."""
    serve = [sys.executable, "-m", "espalier", "serve", "--data-dir", str(data_dir), "--port", "0", *options]
    with subprocess.Popen(
        serve, env=ENVIRONMENT | variables, stdout=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()  # the test's own time limit bounds this
            assert "ready at" in line, line
            yield Served(process, line.split("ready at ")[1].split(";")[0], data_dir)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(STOP_TIMEOUT_S)


def _heed_ctrl_c() -> None:
    """As in a terminal: tests run in the background of a shell are started with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _parent(process: Path) -> int:
    return int(fields[1]) if (fields := _stat(process)) else -1


def _state(pid: int) -> str:
    return fields[0] if (fields := _stat(Path(f"/proc/{pid}"))) else ""


def _stat(process: Path) -> list[str]:
    """Fields of /proc/PID/stat from the state on, or none where the process is gone."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
