"""docs/results.md: what benchmarks/results holds, for readers. Every script writes it anew with its own results.

python -m benchmarks.page
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import REPOSITORY

PAGE = REPOSITORY / "docs" / "results.md"
RESULTS = REPOSITORY / "benchmarks" / "results"
_ARGUMENTS = {
    "accuracy": "--methods all --epochs 3 --rates 0.01 0.02 0.05; "
    "python -m benchmarks.accuracy --bases resnet56 --factors 2 --epochs 3 --taught "
    "--rates 0.01 0.02",
    "masks": "resnet56.onnx cifar10_val.tar.xz",
    "papers": "random-masks --base-epochs 8 --epochs 4; python -m benchmarks.papers heuristic --epochs 1",
}
"""Of the scripts that need some."""

_HEAD = """# Measured

Written by the scripts in `benchmarks/`, each below the command that measures it; `make claims` prints the same claims.
Figures that are times are compared within one run. Long measurements go on where they stopped, so that rows of several
commits stand side by side: each row's are in its file, and without that file all is measured anew. The machine is the
last one's. A claim that does not hold stays.
"""


def write() -> None:
    PAGE.write_text(render(RESULTS))


def render(folder: Path) -> str:
    """The page about the results files of a folder."""
    return "\n".join(
        [_HEAD, *(_section(file.stem, json.loads(file.read_text())) for file in sorted(folder.glob("*.json")))]
    )


def _section(name: str, contents: Mapping[str, Any]) -> str:
    command = f"python -m benchmarks.{name} {_ARGUMENTS.get(name, '')}".strip()
    lines = [f"## {name}", "", f"`{command}`: {_machine(contents['machine'])}; {_commits(contents)}.", ""]
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
    return f"{machine['cores']} cores of {machine['processor']}, {memory} GiB, Python {machine['python']}, {versions}"


def _commits(contents: Mapping[str, Any]) -> str:
    """The commits that measured the rows, those of most rows first."""
    rows = contents.get("commits", {})
    count = Counter(commit for commits in rows.values() for commit in commits) or {contents["machine"]["commit"]: 0}
    named = [commit[:10] + (" with changes" if commit.endswith("+changes") else "") for commit in count]
    if len(named) == 1:
        return f"commit {named[0]}"
    most = sorted(zip(named, count.values(), strict=True), key=lambda pair: -pair[1])
    return "rows of commits " + ", ".join(f"{name} ({rows})" for name, rows in most)


if __name__ == "__main__":
    write()
