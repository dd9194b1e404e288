"""examples/ci-webhook.md, followed word by word: every block in one shell and in order."""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.served import ENVIRONMENT, ROOT
from tests.redis_server import free_port

GUIDE = (ROOT / "examples" / "ci-webhook.md").read_text()


@pytest.mark.slow  # eight jobs and inspections of real workers
@pytest.mark.timeout(600)
def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    for name in ("examples", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    script = "set -euo pipefail\n" + "".join(re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL))
    ports = {"PORT": str(free_port()), "STATUS_PORT": str(free_port())}
    environment = {key: value for key, value in ENVIRONMENT.items() if not key.startswith(("GITHUB_", "CI_"))}
    shell = subprocess.Popen(
        [shutil.which("bash"), "-c", script],
        cwd=tmp_path,
        env=environment | ports,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, complaints = shell.communicate(timeout=560)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, said + complaints
    assert "half: passed" in said
    assert "All 2 gates passed." in said
    assert "the same run" in said
    assert "exit code 1" in said
    failures = (tmp_path / "ci-demo" / "bad.xml").read_text()
    assert 'failures="2"' in failures
    assert "macs_ratio is 1; it does not hold that macs_ratio &lt;= 0.55" in failures
    statuses = [json.loads(line) for line in (tmp_path / "ci-demo" / "statuses.jsonl").read_text().splitlines()]
    last = {status["path"].rpartition("/")[2][0]: status for status in statuses}
    assert (last["1"]["state"], last["2"]["state"]) == ("success", "failure")
    assert "macs_ratio is 1" in last["2"]["description"]
    assert 'failures="0"' in (tmp_path / "ci-demo" / "gates.xml").read_text()
