"""What the README says about settings, commands and files, against the code."""

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from app.settings import ApiSettings
from espalier.cli import app
from models_store.documents.job_spec import NEW_JOB
from worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()


def settings_rows() -> list[str]:
    """The table's rows, as the settings classes have it."""
    fields = WorkerSettings.model_fields | ApiSettings.model_fields
    return [
        f"| `ESPALIER_{name.upper()}` | {default(field.default)} | {field.description} |"
        for name, field in sorted(fields.items())
    ]


def default(value: object) -> str:
    return "" if value in (None, "") else f"`{value}`"


def test_settings_table_is_the_code():
    table = README.split("## Settings")[1].split("## ")[0]
    assert [row for row in table.splitlines() if row.startswith("| `ESPALIER_")] == settings_rows()


def test_every_command_is_listed_and_exists():
    listed = set(re.findall(r"^\| `espalier ([a-z]+)", README, re.MULTILINE))
    assert listed == set(get_command(app).commands)


def test_make_targets_and_linked_files_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)`", README)) <= targets
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def job_examples() -> list[str]:
    """The JSON in backticks of the list under `The API with curl`: whole jobs, and fields of one."""
    listed = README.split("## The API with curl")[1].split("From Python:")[0].rpartition("```")[2]
    return re.findall(r"`(\{?\"[^`]*)`", listed)


def test_there_are_examples_of_jobs():
    assert [word for word in ("estimate", "sweep", "pruning", "kernels", "schedule", "random_masks")
            if not any(word in example for example in job_examples())] == []  # fmt: skip


@pytest.mark.parametrize("example", job_examples())
def test_examples_of_jobs_are_accepted(example):
    inputs = {"model_id": f"mdl_{0:032x}", "dataset_id": f"dst_{0:032x}"}
    fields = json.loads(example.replace("…, ", "") if example.startswith("{") else f"{{{example}}}")
    whole = {"kind": "prune"} | fields
    if whole["kind"] == "prune":
        whole = {"budget": {"macs_ratio": 0.5}} | whole
    if whole["kind"] != "estimate":
        whole |= inputs
    NEW_JOB.validate_python(whole | {"model_id": inputs["model_id"]})
