"""`espalier serve`: one command starts everything, and nothing outlives it."""

import os
import signal
import socket
from contextlib import suppress

import httpx
from served import alive, command, descendants, run, served, wait_until


def test_one_service_per_folder_and_port_until_ctrl_c(tmp_path):
    with served(tmp_path / "data") as service:
        assert httpx.get(f"{service.url}/docs").is_success
        port = service.url.rpartition(":")[2]

        again = run("serve", "--data-dir", str(tmp_path / "data"), "--port", "0")
        assert again.returncode == 1
        assert f"in use by process {service.process.pid}" in again.stderr
        beside = run("serve", "--data-dir", str(tmp_path / "other"), "--port", port)
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
        wait_until(lambda: alive({api}) == set(), 20, "the end of the API")
        assert httpx.get(f"{service.url}/readyz", timeout=60).is_success  # waits in the socket that outlived the API

        def kill_all() -> bool:
            for child in descendants(service.process.pid):
                with suppress(ProcessLookupError):  # it ended by itself meanwhile
                    os.kill(child, signal.SIGKILL)
            return service.process.poll() is not None

        wait_until(kill_all, 60, "the end of the service")
        assert service.process.returncode == 1


def test_no_child_survives_a_killed_service(tmp_path):
    with served(tmp_path / "data") as service:
        children = descendants(service.process.pid)
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not alive(children), 20, "the end of all children")


def test_a_service_that_cannot_start_says_why(tmp_path):
    ended = run("serve", "--data-dir", str(tmp_path / "data"), "--port", "0", ESPALIER_DATABASE_URL="mysql://x/y")
    assert ended.returncode == 1
    assert "migrations ended with 1" in ended.stderr
    assert "database_url must begin with sqlite" in ended.stderr
