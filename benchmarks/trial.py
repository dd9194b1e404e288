"""One measurement in a process of its own: with a time limit, one thread, and an account of how it ended.

Importing torch and its libraries takes longer than most measurements. So each kind of measurement has a nursery, a
process that has imported what it needs and nothing else, and forks a fresh child for every one.

    python -m benchmarks.trial MODULE [IMPORT ...]   # a nursery: orders on standard input, answers on standard output
"""

import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import REPOSITORY
from benchmarks.pruners.report import heard

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_nurseries: dict[str, subprocess.Popen[str]] = {}


def run(module: str, arguments: Sequence[str], limit_seconds: float, imports: Sequence[str] = ()) -> dict[str, Any]:
    """What `python -m module arguments` reported, or `{"status": "failed" | "timeout", "error": ...}`.

    `imports` names what the module imports late; its own imports need not be named.
    """
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder) / "output", Path(folder) / "errors"
        order = {
            "arguments": list(arguments),
            "environment": {**os.environ, **_ONE_THREAD},
            "limit": limit_seconds,
            "output": str(output),
            "errors": str(errors),
        }
        answer = _ask(_nursery(module, imports), order)
        if answer["timeout"]:
            return {"status": "timeout", "error": f"stopped after {limit_seconds:.0f} s"}
        result = heard(output.read_text(errors="replace")) if answer["status"] == 0 else None
        if result is None:
            last = [line for line in errors.read_text(errors="replace").splitlines() if line.strip()][-1:]
            return {"status": "failed", "error": (last[0] if last else f"exit status {answer['status']}")[:400]}
        return result


def _nursery(module: str, imports: Sequence[str]) -> subprocess.Popen[str]:
    """The running nursery of a module. It ends with this process, which holds the other end of its input."""
    nursery = _nurseries.get(module)
    if nursery is None or nursery.poll() is not None:
        nursery = _nurseries[module] = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.trial", module, *imports],
            cwd=REPOSITORY,
            env={**os.environ, **_ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    return nursery


def _ask(nursery: subprocess.Popen[str], order: dict[str, Any]) -> dict[str, Any]:
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(json.dumps(order) + "\n")
    nursery.stdin.flush()
    line = nursery.stdout.readline()
    if not line:
        sys.exit(f"The process that measures ended with {nursery.wait()}.")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _serve(module: str, imports: Sequence[str]) -> None:
    """The nursery's life."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print what they like; answers are alone on their way
    for name in (module, *imports):
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _measure(module, order)
        answers.write(json.dumps(_outcome(child, order["limit"])) + "\n")
        answers.flush()


def _measure(module: str, order: dict[str, Any]) -> None:
    """In the child: run the module as a program and end."""
    os.setpgid(0, 0)
    status = 1
    try:
        for descriptor, path in ((1, order["output"]), (2, order["errors"])):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
        os.environ.update(order["environment"])
        sys.argv = [module, *order["arguments"]]
        sys.modules.pop(module)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _outcome(child: int, limit_seconds: float) -> dict[str, Any]:
    end = os.pidfd_open(child)
    in_time = bool(select.select([end], [], [], limit_seconds)[0])
    os.close(end)
    try:
        os.killpg(child, signal.SIGKILL)  # what it started must not outlive it
    except ProcessLookupError:  # it ended before it had a group of its own
        os.kill(child, signal.SIGKILL)
    return {"timeout": not in_time, "status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2:])
