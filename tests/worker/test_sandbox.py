"""What a child may do, tried out by a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from worker import landlock, sandbox

needs_landlock = pytest.mark.skipif(not landlock.available(), reason="this kernel has no Landlock with TCP rules")

PRELUDE = """
import json, os, socket, subprocess, sys
from pathlib import Path
from worker import sandbox

folder, tier, parent = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
limits = sandbox.Limits(memory_bytes=2**31, file_bytes=2**20)
joins_others = sys.argv[4] == "True"
sandbox.enter(tier, limits, parent, readable=(folder,), writable=(folder / "out",), joins_others=joins_others)

def outcome(action):
    try:
        action()
    except BaseException as error:
        return type(error).__name__
    return "allowed"
"""


def _confined(script: str, folder: Path, tier: sandbox.Tier, joins_others: bool = False) -> dict[str, Any]:
    """Run a script that prints a JSON object, confined as a child of this process."""
    (folder / "out").mkdir()
    (folder / "input").write_text("an input")
    inherited = {**os.environ, "ESPALIER_DATABASE_URL": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}
    arguments = [str(folder), tier, str(os.getpid()), str(joins_others)]
    finished = subprocess.run(
        [sys.executable, "-P", "-c", PRELUDE + textwrap.dedent(script), *arguments],
        env=sandbox.environment(inherited, folder / "out", threads=1),
        capture_output=True,
        text=True,
        check=True,
    )
    printed: dict[str, Any] = json.loads(finished.stdout)
    return printed


@pytest.mark.parametrize("tier", ["T0", pytest.param("T1", marks=needs_landlock)])
def test_every_tier(tmp_path: Path, tier: sandbox.Tier) -> None:
    script = """
        def write(size):
            (folder / "out" / "file").write_bytes(bytes(size))

        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print(json.dumps({
            "secrets": [n for n in os.environ if "ESPALIER" in n or "SECRET" in n],
            "home": os.environ["HOME"],
            "niceness": os.nice(0),
            "no_new_privs": status["NoNewPrivs"].strip(),
            "capabilities": int(status["CapEff"], 16),
            "core": outcome(lambda: None),
            "memory": outcome(lambda: bytearray(2**32)),
            "small file": outcome(lambda: write(1000)),
            "large file": outcome(lambda: write(2**21)),
            "read input": outcome((folder / "input").read_text),
            "parent's environment": outcome(Path(f"/proc/{parent}/environ").read_bytes) if os.getuid() == 0 else "-",
        }))
        """
    assert _confined(script, tmp_path, tier) == {
        "secrets": [],
        "home": str(tmp_path / "out"),
        "niceness": min(os.nice(0) + 10, 19),
        "no_new_privs": "1",
        "capabilities": 0,
        "core": "allowed",
        "memory": "MemoryError",
        "small file": "allowed",
        "large file": "OSError",
        "read input": "allowed",
        "parent's environment": "PermissionError" if os.getuid() == 0 else "-",
    }


@needs_landlock
def test_landlock(tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text("another job's file")
    script = f"""
        out, outside = folder / "out", Path({str(outside)!r})
        (out / "a").write_text("mine")
        listener = socket.socket()
        print(json.dumps({{
            "rename": outcome(lambda: (out / "a").rename(out / "b")),
            "read elsewhere": outcome(outside.read_text),
            "write elsewhere": outcome(lambda: outside.write_text("taken over")),
            "write its inputs": outcome(lambda: (folder / "input").write_text("forged")),
            "list the home of all": outcome(lambda: os.listdir("/")),
            "read secrets": outcome(lambda: open("/etc/passwd").read()),
            "link": outcome(lambda: (out / "link").symlink_to("/etc/passwd")),
            "pipe": outcome(lambda: os.mkfifo(out / "pipe")),
            "run a program": outcome(lambda: subprocess.run(["/bin/true"])),
            "listen": outcome(lambda: listener.bind(("127.0.0.1", 0))),
            "connect": outcome(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
            "signal its parent": outcome(lambda: os.kill(parent, 0)),
            "parent's environment": outcome(Path(f"/proc/{{parent}}/environ").read_bytes),
        }}))
        """
    outcomes = _confined(script, tmp_path, "T1")
    assert outcomes.pop("rename") == "allowed"
    assert set(outcomes.values()) == {"PermissionError"}, outcomes
    assert outside.read_text() == "another job's file"


@needs_landlock
def test_network_is_closed_to_all_threads_of_a_process_that_joined_others(tmp_path: Path) -> None:
    """One that was there before, too; what is connected goes on."""
    script = """
        import threading
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        joined = socket.create_connection(address)
        other, _ = listener.accept()
        waiting = socket.create_connection(address)
        begin, found = threading.Event(), {}

        def tried():
            begin.wait()
            return {
                "socket": outcome(socket.socket),
                "connect": outcome(lambda: socket.create_connection(address, 1)),
                "bind again": outcome(lambda: spare.bind(("127.0.0.1", 0))),
                "listen": outcome(lambda: spare.listen()),
                "accept": outcome(listener.accept),
                "io_uring": outcome(uring),
                "read elsewhere": outcome(lambda: open("/etc/passwd").read()),
            }

        def uring():
            import ctypes
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.syscall(425, 1, ctypes.byref((ctypes.c_char * 256)())) < 0:
                raise OSError(ctypes.get_errno(), "io_uring_setup")

        spare = socket.socket()
        thread = threading.Thread(target=lambda: found.update(tried()))
        thread.start()
        sandbox.close_network(tier)
        begin.set()
        thread.join()
        joined.sendall(b"still there")
        print(json.dumps({"before": found, "first": tried(), "heard": other.recv(100).decode()}))
        """
    outcomes = _confined(script, tmp_path, "T1", joins_others=True)
    assert outcomes["heard"] == "still there"
    assert set(outcomes["before"].values()) == {"PermissionError"}, outcomes
    assert outcomes["first"] == outcomes["before"]


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    """Even when the parent is killed so that it can tell nobody."""
    child = """
        import os, sys, time
        from worker import sandbox
        sandbox.enter("T0", sandbox.Limits(), os.getppid(), (), ())
        print(os.getpid(), flush=True)
        time.sleep(600)
        """
    parent = f"""
        import subprocess, sys
        subprocess.run([sys.executable, "-c", {textwrap.dedent(child)!r}])
        """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child_id = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: _ended(child_id), 5, "the child to end")


def test_orphan_ends_at_once(tmp_path: Path) -> None:
    """Its parent was gone before it could be set to die with it."""
    script = "from worker import sandbox; sandbox.enter('T0', sandbox.Limits(), 1, (), ()); print('went on')"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stdout == ""


def _ended(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
