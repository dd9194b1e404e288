"""`espalier serve`: one command starts everything, and nothing outlives it."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import httpx

from tests.e2e.served import ENVIRONMENT, alive, command, descendants, run, served
from tests.waiting import until


def test_one_service_per_folder_and_port_until_ctrl_c(tmp_path):
    with served(tmp_path / "data") as service:
        assert httpx.get(f"{service.url}/docs").is_success
        port = service.url.rpartition(":")[2]

        again = run("serve", "--data-dir", str(tmp_path / "data"), "--port", "0")
        assert again.returncode == 1
        assert f"in use by process {service.process.pid}" in again.stderr
        other = ["serve", "--data-dir", str(tmp_path / "other")]
        for beside in (run(*other, "--port", port), run(*other, ESPALIER_PORT=port)):
            assert beside.returncode == 1
            assert f"cannot listen on 127.0.0.1:{port}" in beside.stderr
            assert "--port" in beside.stderr
        assert httpx.get(f"{service.url}/readyz").is_success

        children = descendants(service.process.pid)
        assert len(children) >= 5  # Redis, API, worker, sweeper, courier
        assert service.interrupt() == 0
        assert alive(children) == set()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0


def test_a_child_that_dies_is_started_again_but_not_for_ever(tmp_path):
    with served(tmp_path / "data") as service:
        (api,) = (pid for pid in descendants(service.process.pid) if "-m app --fd" in command(pid))
        os.kill(api, signal.SIGKILL)
        until(lambda: alive({api}) == set(), 20, "the end of the API")
        assert httpx.get(f"{service.url}/readyz", timeout=60).is_success  # waits in the socket that outlived the API

        def kill_all() -> bool:
            for child in descendants(service.process.pid):
                with suppress(ProcessLookupError):  # it ended by itself meanwhile
                    os.kill(child, signal.SIGKILL)
            return service.process.poll() is not None

        until(kill_all, 60, "the end of the service")
        assert service.process.returncode == 1


def test_no_child_survives_a_killed_service(tmp_path):
    with served(tmp_path / "data") as service:
        children = descendants(service.process.pid)
        service.process.kill()
        service.process.wait()
        until(lambda: not alive(children), 20, "the end of all children")


def test_a_service_that_cannot_start_says_why(tmp_path):
    ended = run("serve", "--data-dir", str(tmp_path / "data"), "--port", "0", ESPALIER_DATABASE_URL="mysql://x/y")
    assert ended.returncode == 1
    assert "migrations ended with 1" in ended.stderr
    assert "database_url must begin with sqlite" in ended.stderr


def test_beyond_this_machine_it_asks_for_keys_and_makes_the_first(tmp_path):
    with served(tmp_path / "data", "--host", "0.0.0.0") as service:  # noqa: S104
        told = service.process.stdout.readline()
        assert "shown this once: esp_" in told
        first = told.split(": ")[1].strip()
        assert httpx.get(f"{service.url}/v1/jobs").status_code == 401
        logs = "".join(log.read_text() for log in (tmp_path / "data" / "logs").iterdir())
        assert first not in logs

        def keys(*arguments: str, key: str = first) -> str:
            ended = run("keys", *arguments, ESPALIER_URL=service.url, ESPALIER_API_KEY=key)
            assert ended.returncode == 0, ended.stderr
            return ended.stdout.strip()

        id, made = keys("create", "ci", "--scope", "read", "--scope", "admin", "--days", "7").split()
        rotated = keys("rotate", id, "--grace-hours", "0", key=made).split()[1]
        assert keys("list", key=rotated).splitlines()[0].startswith(f"{id} read,admin ")
        keys("revoke", id)
        refused = run("keys", "list", ESPALIER_URL=service.url, ESPALIER_API_KEY=rotated)
        assert refused.returncode == 1
        assert "key_revoked" in refused.stderr
        direct = run("keys", "create", "--direct", "lost the first", ESPALIER_DATA_DIR=str(tmp_path / "data"))
        assert direct.returncode == 0, direct.stderr
        assert keys("list", key=direct.stdout.split()[1]).splitlines()[0].endswith("lost the first")
        again = subprocess.run(
            [sys.executable, "-m", "models_store.first_key", "--if-none"],
            env=ENVIRONMENT | {"ESPALIER_DATA_DIR": str(tmp_path / "data")},
            capture_output=True,
            text=True,
        )
        assert (again.returncode, again.stdout) == (0, "")
