"""What can be checked of the container files without a container engine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "docker-compose.yml"
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]


def test_compose_file_follows_the_specification():
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_dockerfile_passes_hadolint():
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint has no wheel for this platform")
    linted = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


def test_every_secret_must_be_given():
    names = re.findall(r"\$\{([A-Z0-9_]+)(:?[-?])?", COMPOSE.read_text())
    secrets = {name for name, _ in names if re.search("PASSWORD|KEY", name)}
    assert secrets == {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    assert {operator for name, operator in names if name in secrets} == {":?"}


def test_every_service_that_stays_is_watched_or_says_why_not():
    lasting = {name for name, service in SERVICES.items() if service.get("restart") != "no"}
    assert lasting == {"api", "worker-cpu", "worker-gpu", "sweeper", "courier", "postgres", "redis", "storage"}
    assert {name for name in lasting if "healthcheck" not in SERVICES[name]} == set()


def test_only_the_api_can_be_reached_and_only_from_this_machine():
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(ports) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in ports["api"])


def test_images_are_built_from_stages_that_exist_and_what_they_copy_is_not_ignored():
    dockerfile = (ROOT / "Dockerfile").read_text()
    stages = set(re.findall(r" AS (\S+)$", dockerfile, re.MULTILINE))
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} <= stages
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE) for name in line.split()[:-1]
    }
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
