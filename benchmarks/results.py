"""The files in results/: rows, machine and claims, written whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import page

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Claim:
    """One measurable sentence of an issue: what was measured, what was asked for, and whether that holds."""

    name: str
    issue: int
    value: str
    goal: str
    holds: bool


def read(path: Path) -> dict[str, Any]:
    """The contents of a results file; empty where none was written yet."""
    if not path.exists():
        return {}
    contents: dict[str, Any] = json.loads(path.read_text())
    return contents


def write(path: Path, contents: Mapping[str, Any], claims: list[Claim]) -> None:
    """Write `contents` with the claims, so that an interrupted run leaves the last whole file, and the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps({**contents, "claims": [asdict(claim) for claim in claims]}, indent=1) + "\n")
    unfinished.replace(path)
    if path.parent == FOLDER:
        page.write()
