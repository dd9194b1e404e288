"""The files in results/: rows, machine and claims, written whole or not at all."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, page

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


def all_claims(folder: Path) -> dict[str, list[Claim]]:
    """The claims of each results file of a folder, by its name."""
    return {file.name: [Claim(**claim) for claim in read(file)["claims"]] for file in sorted(folder.glob("*.json"))}


def write(path: Path, contents: Mapping[str, Any], claims: list[Claim]) -> None:
    """Write `contents` with the claims, so that an interrupted run leaves the last whole file, and the page.

    Rows of several runs may stand side by side, so each has the commits that measured it, under `commits`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    commits = measured_at(read(path), contents, machine.commit())
    whole = {**contents, "commits": commits, "claims": [asdict(claim) for claim in claims]}
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(whole, indent=1) + "\n")
    unfinished.replace(path)
    if path.parent == FOLDER:
        page.write()


def measured_at(before: Mapping[str, Any], contents: Mapping[str, Any], commit: str) -> dict[str, list[str]]:
    """The commits that measured each row of `contents`: what stood in `before` keeps its own, and what was added to a
    row since, or measured anew, is of `commit`. Rows of a list are told apart by what they hold."""
    known = {name: (row, before.get("commits", {}).get(name, [])) for name, row in _rows(before)}
    of_content = {json.dumps(row): commits for row, commits in known.values()}
    found = {}
    for name, row in _rows(json.loads(json.dumps(contents))):
        if (same := of_content.get(json.dumps(row))) is not None:
            found[name] = same
        else:
            earlier = known[name][1] if name in known and _keeps_part(row, known[name][0]) else []
            found[name] = list(dict.fromkeys([*earlier, commit]))
    return found


def _rows(contents: Mapping[str, Any], part: str = "") -> Iterator[tuple[str, Any]]:
    """The rows of a file and of all parts of it that have some, and their names."""
    for key, value in contents.items():
        if key == "rows":
            pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
            yield from ((f"{part}{name}", row) for name, row in pairs)
        elif isinstance(value, Mapping):
            yield from _rows(value, f"{part}{key}/")


def _keeps_part(row: Any, earlier: Any) -> bool:
    """Whether some part of a row, such as one pruner's figures, is as it was."""
    return isinstance(row, Mapping) and any(
        isinstance(value, Mapping) and row.get(key) == value for key, value in earlier.items()
    )
