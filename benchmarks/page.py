"""docs/results.md: what benchmarks/results holds, for readers. Every script writes it anew with its own results.

python -m benchmarks.page
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import REPOSITORY

PAGE = REPOSITORY / "docs" / "results.md"
RESULTS = REPOSITORY / "benchmarks" / "results"

_HEAD = """# Measured

Written by the scripts in `benchmarks/`, each beside the command that measures its figures anew; `make claims` prints
the same claims. All compared figures come from one run on one machine. A claim that does not hold stays.
"""


def write() -> None:
    PAGE.write_text(render(RESULTS))


def render(folder: Path) -> str:
    """The page about the results files of a folder."""
    return "\n".join(
        [_HEAD, *(_section(file.stem, json.loads(file.read_text())) for file in sorted(folder.glob("*.json")))]
    )


def _section(name: str, contents: Mapping[str, Any]) -> str:
    lines = [f"## {name}", "", f"`python -m benchmarks.{name}`: {_machine(contents['machine'])}.", ""]
    if contents["claims"]:
        lines += ["| issue | what was measured | value | goal | holds |", "|---|---|---|---|---|"]
        lines += [*(claim_row(claim) for claim in contents["claims"]), ""]
    return "\n".join([*lines, f"The rows: [`{name}.json`](../benchmarks/results/{name}.json).", ""])


def claim_row(claim: Mapping[str, Any]) -> str:
    """A claim as a row of its file's table."""
    cells = (claim["issue"], claim["name"], claim["value"], claim["goal"], "yes" if claim["holds"] else "**no**")
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    memory = round(machine["memory_bytes"] / 2**30)
    commit = machine["commit"][:10] + (" with changes" if machine["commit"].endswith("+changes") else "")
    return (
        f"{machine['cores']} cores of {machine['processor']}, {memory} GiB, Python {machine['python']}, {versions}; "
        f"commit {commit}"
    )


if __name__ == "__main__":
    write()
